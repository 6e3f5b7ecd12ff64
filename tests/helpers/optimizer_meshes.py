"""Takes three steps with an optimizer, on one device and on meshes of 8, and prints a JSON object for each.

A separate program, because JAX fixes the number of devices at start. tests/training/test_optimizer_meshes.py runs it.
"""

import dataclasses
import json
import sys

import jax
import numpy as np

from tests.helpers.collectives import collectives
from tests.helpers.sharded_steps import BATCH, CONFIG, architecture, compiled, make_mesh, rows
from wizardcoder_jax.config import OptimConfig
from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.models.transformer import Transformer
from wizardcoder_jax.training.global_batch import put_batch
from wizardcoder_jax.training.optimizers.quantized_moments import QuantizedMoment
from wizardcoder_jax.training.train_step import make_step, new_state
from wizardcoder_jax.training.trainable import Partition

ARCH = architecture("starcoder2", embed_dim=256, mlp_dim=512, head_dim=64, num_kv_heads=8)
OPTIMIZERS = [("adamw", "int8"), ("muon", "float32"), ("adafactor", "float32")]
LARGE = 5000  # number of elements; only kernels, tables and their moments have more


def train(name, dtype, mesh_name, rules):
    """Take the steps; return the losses, and the collectives of the optimizer update."""
    optim = OptimConfig(name=name, moment_dtype=dtype, peak_lr=1e-3, warmup_steps=0, clip_norm=1.0)
    config, mesh = dataclasses.replace(CONFIG, optim=optim), make_mesh(mesh_name)
    with jax.set_mesh(mesh):
        model = jax.jit(lambda: Transformer(ARCH, rules, jax.random.key(0)))()
        partition = Partition.of(model, config)
        state, losses = new_state(model, config, mesh, rules), []
        batch = put_batch(lambda places: {key: array[places] for key, array in rows(ARCH).items()}, BATCH, 1, mesh, rules)
        program = compiled(make_step(config, partition, unroll=False), state, batch)
        for _ in range(3):
            state, metrics = program(state, batch)
            losses.append(float(metrics.loss))
    return {"name": name, "mesh": mesh_name, "losses": losses, "moved": moved(program), **splits(state)}


def moved(program):
    """Return the kinds and shapes of large collectives outside the forward and backward pass."""
    found = [(each.kind, shape, each.op_name) for each in collectives(program.as_text(), 8) for shape in each.shapes]
    return [(kind, shape) for kind, shape, at in found if np.prod(shape) > LARGE and "jvp" not in at and "transpose" not in at]


def splits(state):
    """Return the number of devices over which each moment and its parameter are sharded."""
    split = lambda array: array.size // array.addressable_shards[0].data.size  # noqa: E731
    found = {"codes": [], "scales": [], "weights": []}
    is_blocks = lambda node: isinstance(node, QuantizedMoment)  # noqa: E731
    for path, node in jax.tree_util.tree_leaves_with_path(state.opt_state, is_leaf=is_blocks):
        if is_blocks(node):
            name = next(key.key for key in reversed(path) if str(getattr(key, "key", "")) in state.trained)
            found["codes"].append(split(node.codes[...]))
            found["scales"].append(split(node.scales[...]))
            found["weights"].append(split(state.trained[name][...]))
    return found


if __name__ == "__main__":
    for name, dtype in OPTIMIZERS:
        if name != sys.argv[1]:
            continue
        for mesh_name, strategy in (("1x1", "fsdp"), ("2x4", "fsdp_tensor"), ("2x4", "fsdp"))[: 3 if name == "muon" else 2]:
            print(json.dumps(train(name, dtype, mesh_name, RULES[strategy])), flush=True)
