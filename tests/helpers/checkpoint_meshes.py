"""Saves checkpoints on one mesh and restores them on another. A separate program, because JAX fixes the devices at start.

    checkpoint_meshes.py chain FOLDER | program | both FOLDER

prints one JSON object per line. tests/checkpoints/test_checkpoint_meshes.py runs it; `both` runs in two processes.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.helpers.collectives import collectives
from wizardcoder_jax.checkpoints.fingerprint import array_checksums, fingerprint_arrays
from wizardcoder_jax.checkpoints.manager import CheckpointManager
from wizardcoder_jax.checkpoints.metadata import CheckpointCard
from wizardcoder_jax.checkpoints.reader import find_checkpoint, flatten, load_params
from wizardcoder_jax.core.distributed import initialize_distributed
from wizardcoder_jax.core.sharding import MESH_AXES, RULES
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES
from wizardcoder_jax.models.transformer import abstract_transformer

SIZES = {"vocab_size": 96, "embed_dim": 16, "num_layers": 3, "head_dim": 4, "mlp_dim": 40}
REST = {"family": "gpt_bigcode", "num_heads": 4, "num_kv_heads": 1, "mlp": "gelu", "max_positions": 32, "norm_eps": 1e-5}
ARCH = ArchConfig(**{**FAMILIES["gpt_bigcode"].arch_fields, **SIZES, **REST, "tie_embeddings": True})
CARD = CheckpointCard(arch=ARCH, tokenizer={})
# (number of devices, mesh, strategy) of each checkpoint in the chain
CHAIN = [
    ((2, 4), "fsdp_tensor"),
    ((2, 2), "fsdp_tensor"),
    ((1, 2), "fsdp"),
    ((1, 1), "fsdp"),
    ((4, 2), "fsdp"),
    ((2, 4), "fsdp_tensor"),
]


def make_mesh(shape):
    return Mesh(np.array(jax.devices()[: np.prod(shape)]).reshape(shape), MESH_AXES)


def shapes_on(mesh, rules):
    """Return the shapes of a training state: weights, moments in three dtypes, a moving average and a count."""
    weights = jax.tree.leaves(abstract_transformer(ARCH, rules), is_leaf=lambda leaf: isinstance(leaf, nnx.Param))
    placed = {f"{i}": (leaf.shape, rules.sharding(mesh, leaf.shape, leaf.axes)) for i, leaf in enumerate(weights)}

    def like(dtype):
        return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, (shape, sharding) in placed.items()}

    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    moments = {"first": like(jnp.float32), "small": like(jnp.bfloat16), "blocks": like(jnp.int8), "count": count}
    return {"params": like(jnp.float32), "optimizer": moments, "ema": like(jnp.float32)}


def values():
    """Return the values of the state as NumPy arrays."""
    rng = np.random.default_rng(0)
    shapes = shapes_on(make_mesh((1, 1)), RULES["fsdp"])
    return jax.tree.map(lambda leaf: rng.integers(-99, 99, leaf.shape).astype(leaf.dtype), shapes)


def put(state, shapes):
    def place(value, leaf):
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: value[index])

    return jax.tree.map(place, state, shapes)


def differing(found, expected):
    """Return the names of arrays whose bits differ on any device."""
    wrong = []
    for name, array in flatten(found).items():
        whole = flatten(expected)[name]
        good = all(np.asarray(shard.data).tobytes() == whole[shard.index].tobytes() for shard in array.addressable_shards)
        wrong += [] if good else [name]
    return wrong


def chain(folder):
    """Save a checkpoint on each mesh and restore it on the next."""
    expected = values()
    state, run = None, folder
    for i, (shape, strategy) in enumerate(CHAIN):
        shapes = shapes_on(make_mesh(shape), RULES[strategy])
        if state is None:
            state = put(expected, shapes)
        else:
            with CheckpointManager(run, 1) as checkpoints:
                step, state = checkpoints.restore_latest(shapes)
                split = jax.tree.all(jax.tree.map(lambda found, leaf: found.sharding == leaf.sharding, state, shapes))
                yield {"from": step, "devices": int(np.prod(shape)), "split": split, "wrong": differing(state, expected)}
        run = f"{folder}/{i}"
        with CheckpointManager(run, 1, background=True) as checkpoints:
            checkpoints.save(i, CARD, state)


def program():
    """Yield the sizes of the collectives that compute checksums, and the distinct checksums of all shardings."""
    rng = np.random.default_rng(0)
    array = rng.standard_normal((16, 64, 128)).astype(np.float32)
    mesh = make_mesh((2, 4))
    specs = [(), ("data",), (None, "data", "model"), ("model", None, "data"), (None, None, ("model", "data"))]
    arrays = {str(spec): jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec))) for spec in specs}
    replicated = NamedSharding(mesh, PartitionSpec())
    text = jax.jit(array_checksums, out_shardings=replicated).lower(list(arrays.values())).compile().as_text()
    sizes = [int(np.prod(shape)) for found in collectives(text, 8) for shape in found.shapes]
    yield {
        "sizes": sizes,
        "lines": sorted(set(fingerprint_arrays(arrays).values())),
        "whole": fingerprint_arrays({"x": jnp.asarray(array)})["x"],
    }


def both(folder):
    """Save in two processes, damage the newest step, and restore an earlier one in both."""
    initialize_distributed()
    shapes, expected = shapes_on(make_mesh((2, 4)), RULES["fsdp_tensor"]), values()
    parts = {**shapes, "frozen": shapes["ema"]}
    with CheckpointManager(folder, 2, background=True) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, CARD, put({**expected, "frozen": expected["ema"]}, parts))
    if jax.process_index() == 0:
        with open(f"{folder}/checkpoints/3/model/metadata", "w") as file:
            file.write("{}")
    with CheckpointManager(folder, 2) as checkpoints:
        step, found = checkpoints.restore_latest(parts)
        checkpoints.save(3, CARD, found)
    again = load_params(find_checkpoint(folder), {**shapes["params"]})
    wrong = differing(found, {**expected, "frozen": expected["ema"]}) + differing(again, expected["params"])
    yield {"step": step, "wrong": wrong}


if __name__ == "__main__":
    for result in globals()[sys.argv[1]](*sys.argv[2:]):
        print(json.dumps(result), flush=True)
