"""Weights in the layout of the engine: unstacked blocks, with heads and MLP units sharded over the "model" axis."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from wizardcoder_jax.core.sharding import RULES, ShardingRules
from wizardcoder_jax.hf.load_model import OpenedModel
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.int8 import quantize_int8
from wizardcoder_jax.models.param_shardings import param_shardings
from wizardcoder_jax.models.transformer import Transformer, abstract_transformer

# A decode step reads all weights, so they are not sharded over "data": gathering them in every step would be slow.
ENGINE_RULES = RULES["tensor"]
# During training, the copy of the model for sampling has to fit next to the train state. It is therefore also sharded over
# "data" and gathered when it is read. Otherwise a 15B model (31 GB in bfloat16) would not fit on the 8x1 mesh of
# configs/qlora_15b.py.
TRAINING_RULES = RULES["fsdp_tensor"]


def load_engine_weights(model: OpenedModel, mesh: Mesh, dtype: jnp.dtype, *, int8: bool = False) -> Transformer:
    """Load the weights of an opened model for the engine.

    Args:
        model: the opened model.
        mesh: mesh of the devices; it must also be the current mesh (`jax.set_mesh`).
        dtype: dtype of all weights that are not stored in int8.
        int8: whether to store the weight matrices of the blocks in int8.
    """
    weights = model.weights(ENGINE_RULES, mesh, dtype).model
    weights = jax.jit(quantize_int8)(weights) if int8 else weights
    return weights.unstack_layers(free_stacked=True)


def abstract_engine_weights(
    arch: ArchConfig, mesh: Mesh, dtype: jnp.dtype, *, int8: bool = False, rules: ShardingRules = ENGINE_RULES
) -> Transformer:
    """Return the shapes and shardings of the engine's weights without loading them; the devices need not exist."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), abstract_transformer(arch, rules))
    shapes = jax.eval_shape(quantize_int8, shapes) if int8 else shapes
    shapes = jax.eval_shape(Transformer.unstack_layers, shapes)
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(place, shapes, param_shardings(shapes, mesh, rules))


def copy_engine_weights(model: Transformer, mesh: Mesh, dtype: jnp.dtype) -> Transformer:
    """Return a copy, in the layout of the engine, of the weights of a model that is being trained.

    Args:
        model: stacked floating-point weights, with any sharding over `mesh`; they are not changed.
        mesh: mesh of the training run.
        dtype: dtype of the copy.
    """
    abstract = abstract_transformer(model.arch, TRAINING_RULES)
    # Rebuild the modules around the same arrays, because each module stores its sharding rules.
    with_rules = jax.tree.unflatten(jax.tree.structure(abstract), jax.tree.leaves(model))
    return _cast_and_unstack(with_rules, dtype, mesh)


@functools.partial(jax.jit, static_argnames=("dtype", "mesh"))
def _cast_and_unstack(model: Transformer, dtype: jnp.dtype, mesh: Mesh) -> Transformer:
    cast = jax.tree.map(lambda array: array.astype(dtype), model).unstack_layers()
    return jax.lax.with_sharding_constraint(cast, param_shardings(cast, mesh, model.rules)) if mesh.size > 1 else cast
