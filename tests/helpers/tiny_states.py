"""A small training state with arrays of all dtypes. Importing this module initializes no device."""

import jax
import jax.numpy as jnp
import numpy as np

from wizardcoder_jax.checkpoints.metadata import CheckpointCard
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES

SIZES = {"vocab_size": 64, "embed_dim": 8, "num_layers": 2, "head_dim": 4, "mlp_dim": 16}
REST = {"family": "llama", "num_heads": 2, "num_kv_heads": 1, "max_positions": 32, "norm_eps": 1e-5, "tie_embeddings": True}
CARD = CheckpointCard(arch=ArchConfig(**{**FAMILIES["llama"].arch_fields, **SIZES, **REST}), tokenizer={"tokenizer.json": "{}"})
DTYPES = ("float32", "bfloat16", "float16", "int8", "uint8", "int32", "uint32", "bool", "int4")


def bits_of(tree):
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def items(step):
    """Return the items of a checkpoint, with arrays of all dtypes that differ at each step."""
    rng = np.random.default_rng(step)
    some = {kind: jnp.asarray(rng.integers(0, 2 if kind in ("bool", "int4") else 99, (3, 5)), kind) for kind in DTYPES}
    params = {"w": jnp.asarray(rng.standard_normal((4, 6)), jnp.float32), "b": jnp.zeros(6)}
    return {"params": params, "optimizer": (some, jnp.int32(step), {}), "ema": None}


def shapes_of(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
