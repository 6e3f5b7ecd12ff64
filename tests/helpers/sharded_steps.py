"""Prints properties of the training step on meshes of 8 devices, one JSON object per line.

    sharded_steps.py steps ARCHITECTURE [MESH ...] | caches [ARCHITECTURE] | careless | memory

A separate program, because JAX fixes the number of devices at start. tests/core/test_sharding.py runs it.
"""

import dataclasses
import json
import re
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.helpers.collectives import collectives
from wizardcoder_jax.config import OptimConfig, TrainConfig
from wizardcoder_jax.core.sharding import MESH_AXES, RULES, ShardingRules
from wizardcoder_jax.models import reference_attention
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES
from wizardcoder_jax.models.param_shardings import param_shardings
from wizardcoder_jax.models.transformer import Block, abstract_transformer
from wizardcoder_jax.training.global_batch import put_batch
from wizardcoder_jax.training.objectives import chunked_cross_entropy
from wizardcoder_jax.training.objectives.objective import Batch
from wizardcoder_jax.training.train_step import abstract_state, make_step
from wizardcoder_jax.training.trainable import Partition

# Each size is unique, so that a shape identifies an array.
BATCH, LENGTH, EMBED, HEAD, LAYERS = 8, 32, 48, 12, 3
MESHES = ("8x1", "4x2", "2x4", "1x8")
TRAINED = ("fsdp", "fsdp_tensor")  # sharding strategies for training
ARCHITECTURES = {
    "gpt_bigcode multi-query": {"family": "gpt_bigcode", "num_heads": 8, "num_kv_heads": 1, "mlp": "gelu_tanh"},
    "gpt_bigcode multi-head": {"family": "gpt_bigcode", "num_heads": 8, "num_kv_heads": 8, "mlp": "gelu"},
    "starcoder2": {"family": "starcoder2", "num_heads": 8, "num_kv_heads": 2, "mlp": "gelu_tanh", "bias": "all"},
    # 9 heads in 3 groups, as in SmolLM2, which no mesh axis below divides
    "llama": {"family": "llama", "num_heads": 9, "num_kv_heads": 3, "tie_embeddings": False},
    # groups of 4 heads, but 6 or 3 heads per device, so that some devices have parts of two groups
    "qwen2": {"family": "qwen2", "num_heads": 24, "num_kv_heads": 6},
}
OPTIM = OptimConfig(peak_lr=1e-3, warmup_steps=0, clip_norm=1.0)
CONFIG = TrainConfig(batch_size=BATCH, accumulation=1, compute_dtype="float32", remat="full", optim=OPTIM)
FAST = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
}  # compile quickly, as speed does not matter


def architecture(name, **changes):
    sizes = {"vocab_size": 500, "embed_dim": EMBED, "num_layers": LAYERS, "head_dim": HEAD, "mlp_dim": 112}
    rest = {"max_positions": 64, "norm_eps": 1e-5, "tie_embeddings": True}
    chosen = {**sizes, **rest, **ARCHITECTURES[name], **changes}
    window = {"sliding_window": 9} if chosen["family"] == "starcoder2" else {}
    return ArchConfig(**{**FAMILIES[chosen["family"]].arch_fields, **window, **chosen})


def rows(arch):
    """Return rows of two segments with different fractions of supervised tokens; one row has none."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, arch.vocab_size, (BATCH, LENGTH + 1)).astype(np.int32)
    segments = np.repeat([[1, 2, 0]], BATCH, axis=0).repeat([14, 13, LENGTH - 27], axis=1).astype(np.int32)
    positions = np.concatenate([np.arange(14), np.arange(13), np.arange(LENGTH - 27)])[None].repeat(BATCH, axis=0)
    weights = (rng.random((BATCH, LENGTH)) < np.linspace(0, 1, BATCH)[:, None]) & (segments > 0)
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "weights": weights.astype(np.float32) / weights.sum(),
        "segment_ids": segments,
        "positions": positions.astype(np.int32),
        "seeds": np.arange(BATCH, dtype=np.uint32),
    }


def compiled(step, *args):
    lowered = step.lower(*args)
    try:
        return lowered.compile(FAST)
    except jax.errors.JaxRuntimeError:  # versions of XLA differ in their options
        return lowered.compile()


def make_mesh(name):
    shape = tuple(int(part) for part in name.split("x"))
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh(shape, MESH_AXES, axis_types=kinds, devices=jax.devices()[: np.prod(shape)])


def abstract_batch(mesh, rules, batch=BATCH, length=LENGTH):
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, rules.batch))
    kinds = {
        "tokens": jnp.int32,
        "targets": jnp.int32,
        "weights": jnp.float32,
        "segment_ids": jnp.int32,
        "positions": jnp.int32,
    }
    arrays = {name: jax.ShapeDtypeStruct((1, batch, length), kind, sharding=sharding) for name, kind in kinds.items()}
    return Batch(**arrays, seeds=jax.ShapeDtypeStruct((1, batch), jnp.uint32, sharding=sharding))


def compiled_step(arch, mesh_name, rules, **sizes):
    """Return the training step, compiled as in the train command."""
    mesh, model = make_mesh(mesh_name), abstract_transformer(arch, rules)
    with jax.set_mesh(mesh):
        state = abstract_state(model, CONFIG, mesh, rules)
        step = make_step(CONFIG, Partition.of(model, CONFIG), unroll=False)
        return compiled(step, state, abstract_batch(mesh, rules, **sizes))


def described(program, mesh_name):
    """Return the collectives of a program, and the per-device shapes that its loops carry."""
    text, num_model = program.as_text(), int(mesh_name.split("x")[1])
    loops = [line.partition(" while(")[0] for line in text.splitlines() if " while(" in line]
    carried = sorted({tuple(map(int, shape.split(","))) for loop in loops for shape in re.findall(r"f32\[([\d,]+)\]", loop)})
    exchanges = [
        {"kind": found.kind, "shapes": found.shapes, "over_model": found.crosses(num_model), "at": found.op_name}
        for found in collectives(text, 8)
    ]
    return {"exchanges": exchanges, "carried": carried}


def run_step(arch, leaves, mesh_name, rules):
    """Take one step; return the loss, the gradients by name, and the compiled program."""
    mesh, model = make_mesh(mesh_name), abstract_transformer(arch, rules)
    # With b1 = 0 the first moments equal the gradients.
    config = dataclasses.replace(CONFIG, optim=OptimConfig(warmup_steps=0, b1=0.0))
    partition = Partition.of(model, config)
    with jax.set_mesh(mesh):
        shapes = abstract_state(model, config, mesh, rules)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        trained, _ = partition.split(jax.tree.unflatten(jax.tree.structure(model), leaves))
        state = jax.tree.map(lambda leaf, shape: jax.device_put(leaf, shape.sharding), zeros._replace(trained=trained), shapes)
        batch = put_batch(lambda indices: {name: array[indices] for name, array in rows(arch).items()}, BATCH, 1, mesh, rules)
        program = compiled(make_step(config, partition, unroll=False), state, batch)
        state, metrics = program(state, batch)
    grads = optax.tree.get(state.opt_state, "mu")
    return float(metrics.loss), {name: np.asarray(param[...]) for name, param in grads.items()}, program


def parameters(arch):
    """Return random parameters of a model, without constant arrays."""
    named = jax.tree_util.tree_flatten_with_path(abstract_transformer(arch, RULES["fsdp"]))[0]
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(leaf.shape) + ("scale" in str(path))).astype(np.float32) for path, leaf in named]


def steps(name, *meshes):
    """Take one step on each mesh with each strategy, and compare it with one device."""
    chunked_cross_entropy.CPU_CHUNK = 8  # several chunks, whose number differs between rows
    arch = architecture(name)
    leaves = parameters(arch)
    expected_loss, expected, _ = run_step(arch, leaves, "1x1", RULES["fsdp"])
    for strategy in TRAINED:
        for mesh in meshes or MESHES:
            found_loss, found, program = run_step(arch, leaves, mesh, RULES[strategy])
            yield {
                "strategy": strategy,
                "mesh": mesh,
                "loss": [found_loss, expected_loss],
                "errors": {key: float(np.abs(found[key] - grad).max()) for key, grad in expected.items()},
                "largest": {key: float(np.abs(grad).max()) for key, grad in expected.items()},
                **described(program, mesh),
            }


def caches(only=None):
    """Yield the error of hidden states if prompts are prefilled in two chunks and then decoded token by token."""
    extend, multi_query = jax.jit(lambda model, *args: model.extend(*args)), "gpt_bigcode multi-query"
    cases = [("fsdp_tensor", "starcoder2", "2x4"), ("fsdp_tensor", "qwen2", "1x8")]
    # KV caches sharded over sequences or over KV heads
    cases += [("tensor", multi_query, "2x4"), ("tensor", multi_query, "1x8"), ("tensor", "qwen2", "1x8")]
    cases += [("tensor", "gpt_bigcode multi-head", "1x8"), ("tensor", "llama", "2x4")]
    for strategy, name, mesh_name in (case for case in cases if only in (None, case[1])):
        rules, arch = RULES[strategy], architecture(name)
        tokens, found = rows(arch)["tokens"], []
        for mesh in (make_mesh("1x1"), make_mesh(mesh_name)):
            with jax.set_mesh(mesh):
                model = jax.tree.unflatten(jax.tree.structure(abstract_transformer(arch, rules)), parameters(arch))
                model = jax.device_put(model, param_shardings(model, mesh, rules)).unstack_layers()
                cache, outputs = model.empty_cache(BATCH, LENGTH, jnp.float32), []
                for start, end in ((0, 8), (8, 16), (16, 17), (17, 18)):
                    positions = np.broadcast_to(np.arange(start, end), (BATCH, end - start))
                    hidden, cache = extend(model, tokens[:, start:end], positions, cache)
                    outputs.append(np.asarray(hidden))
            found.append(np.concatenate(outputs, axis=1))
        yield {"error": float(np.abs(found[1] - found[0]).max()), "largest": float(np.abs(found[0]).max())}


def careless():
    """Compile two programs with mistakes that the tests must detect: attention sharded by XLA, and positions not gathered."""
    shard_map, arch, rules = ShardingRules.shard_map, architecture("starcoder2"), RULES["fsdp_tensor"]

    def left_to_the_compiler(self, function, in_axes, out):
        is_attention = getattr(function, "func", None) is reference_attention._attend_in_chunks
        return function if is_attention else shard_map(self, function, in_axes, out)

    with mock.patch.object(ShardingRules, "shard_map", left_to_the_compiler):
        yield described(compiled_step(arch, "2x4", rules), "2x4")
    with mock.patch.object(Block, "_gather_sequence", lambda self, normed, residual_axes: normed):
        yield described(compiled_step(arch, "2x4", rules), "2x4")


def memory():
    """Yield the temporary bytes per device with and without sharding of positions between blocks."""
    for rules in (RULES["fsdp_tensor"], dataclasses.replace(RULES["fsdp_tensor"], sequence=())):
        program = compiled_step(architecture("starcoder2", num_layers=24), "1x8", rules, batch=4, length=256)
        yield {"temp_bytes": program.memory_analysis().temp_size_in_bytes, **described(program, "1x8")}


if __name__ == "__main__":
    for result in globals()[sys.argv[1]](*sys.argv[2:]):
        print(json.dumps(result), flush=True)
