"""Computes losses and gradients of small models that the splash attention kernel supports, on a mesh of 8 devices.

`splash_cases.py CASES STRATEGY ...` prints one JSON object for each case and strategy. CASES is a JSON list of [architecture,
attention, loss options]. tests/models/test_splash_attention_meshes.py runs it in a process of its own, because the number of
devices is fixed when JAX starts.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.models import layers, splash_attention
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES
from wizardcoder_jax.models.param_shardings import param_shardings
from wizardcoder_jax.models.transformer import abstract_transformer
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy

LENGTH = 256
PARTS = (70, 101, 45, 40)  # lengths of three segments, then of the padding
ARCHITECTURES = {
    "multi-query, learned": {"family": "gpt_bigcode", "num_heads": 4, "num_kv_heads": 1, "mlp": "gelu_tanh"},
    "multi-head, learned": {"family": "gpt_bigcode", "num_heads": 4, "num_kv_heads": 4, "mlp": "gelu"},
    "grouped-query, rope": {"family": "qwen2", "num_heads": 4, "num_kv_heads": 2},
    "grouped-query, rope, window": {
        "family": "starcoder2",
        "num_heads": 12,
        "num_kv_heads": 6,
        "mlp": "gelu_tanh",
        "bias": "all",
        "sliding_window": 33,
    },
}


def architecture(name):
    sizes = {"vocab_size": 300, "embed_dim": 32, "num_layers": 2, "head_dim": 64, "mlp_dim": 48}
    rest = {"max_positions": LENGTH, "norm_eps": 1e-5, "tie_embeddings": True}
    fields = {**sizes, **rest, **ARCHITECTURES[name]}
    return ArchConfig(**{**FAMILIES[fields["family"]].arch_fields, **fields})


def parameters(arch):
    """Return random parameters of a model; even norms and biases are not constant."""
    named = jax.tree_util.tree_flatten_with_path(abstract_transformer(arch, RULES["fsdp"]))[0]
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(leaf.shape) + ("scale" in str(path))).astype(np.float32) for path, leaf in named]


def rows(arch, batch=2):
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, arch.vocab_size, (batch, LENGTH + 1)).astype(np.int32)
    segment_ids = np.repeat([[1, 2, 3, 0]], batch, axis=0).repeat(PARTS, axis=1).astype(np.int32)
    positions = np.concatenate([np.arange(part) for part in PARTS])[None].repeat(batch, axis=0).astype(np.int32)
    weights = (segment_ids > 0) & (rng.random((batch, LENGTH)) < 0.5)
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "weights": weights.astype(np.float32) / weights.sum(),
        "segment_ids": segment_ids,
        "positions": positions,
        "seeds": np.arange(batch, dtype=np.uint32),
    }


def loss_and_gradients(name, mesh_name, strategy, **options):
    """Return the loss, and the gradients in the order of the leaves."""
    arch, rules, mesh = architecture(name), RULES[strategy], make_mesh(mesh_name)
    loss_options = LossOptions(dtype=jnp.float32, remat="full", **options)
    with jax.set_mesh(mesh):
        model = jax.tree.unflatten(jax.tree.structure(abstract_transformer(arch, rules)), parameters(arch))
        model = jax.device_put(model, param_shardings(model, mesh, rules))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(rules.batch))
        batch = Batch(**{key: jax.device_put(array, sharding) for key, array in rows(arch, batch=8).items()})
        loss, grads = jax.jit(jax.value_and_grad(lambda model, batch: weighted_cross_entropy(model, batch, loss_options)))(
            model, batch
        )
    return float(loss), [np.asarray(leaf) for leaf in jax.tree.leaves(grads)]


def compare_with_one_device(name, kind, options, strategies):
    """Print the differences between a 2x4 mesh and matrix products on one device."""
    layers.is_cpu_target = lambda: kind == "dot"  # with splash, also test the projections in the form that TPUs use
    expected_loss, expected = loss_and_gradients(name, "1x1", "fsdp", attention="dot", **options)
    for strategy in strategies:
        loss, grads = loss_and_gradients(name, "2x4", strategy, attention=kind, **options)
        errors = [float(np.abs(grad - other).max()) for grad, other in zip(grads, expected, strict=True)]
        largest = max(float(np.abs(grad).max()) for grad in expected)
        result = {"name": name, "strategy": strategy, "loss": [loss, expected_loss], "error": max(errors)}
        print(json.dumps({**result, "largest": largest}))


if __name__ == "__main__":
    splash_attention.BLOCK_SIZES = (128,)  # small, so that a row consists of several blocks
    for case in json.loads(sys.argv[1]):
        compare_with_one_device(*case, sys.argv[2:])
