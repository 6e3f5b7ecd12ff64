"""Lowering of the train step and of decoding for devices that this machine does not need to have."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.sharding import RULES, target_device_kind
from wizardcoder_jax.inference import decode_state, engine_programs
from wizardcoder_jax.inference.engine_weights import abstract_engine_weights
from wizardcoder_jax.inference.request import SamplingSteps
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.kv_cache import cache_axes
from wizardcoder_jax.training.objectives.objective import Batch
from wizardcoder_jax.training.train_step import TrainState, abstract_state, make_step
from wizardcoder_jax.training.trainable import Partition, abstract_model


def lower_step(arch: ArchConfig, config: TrainConfig, mesh: Mesh) -> tuple[Any, TrainState]:
    """Lower the train step.

    Args:
        arch: architecture of the trained model.
        config: settings of the training run.
        mesh: mesh of the devices; it must also be the current mesh.

    Returns:
        The lowered step, and the abstract train state that it updates.
    """
    rules = RULES[config.strategy]
    model = abstract_model(arch, rules, config)
    state = abstract_state(model, config, mesh, rules)
    num_rows = config.batch_size // config.accumulation
    sharding = NamedSharding(mesh, PartitionSpec(None, rules.batch))
    dtypes = {"weights": jnp.float32, "seeds": jnp.uint32}
    shapes = {"seeds": (config.accumulation, num_rows)}
    tokens_shape = (config.accumulation, num_rows, config.max_length)
    fields: dict[str, Any] = {
        name: jax.ShapeDtypeStruct(shapes.get(name, tokens_shape), dtypes.get(name, jnp.int32), sharding=sharding)
        for name in Batch._fields
    }
    return make_step(config, Partition.of(model, config), unroll=False).lower(state, Batch(**fields)), state


def lower_decode(
    arch: ArchConfig, mesh: Mesh, *, batch_size: int, cache_length: int, dtype: str, int8: bool
) -> tuple[Any, tuple[Any, Any]]:
    """Lower greedy decoding.

    Args:
        arch: architecture of the model.
        mesh: mesh of the devices; it must also be the current mesh.
        batch_size: number of sequences that are decoded together.
        cache_length: number of positions of each sequence in the KV cache.
        dtype: dtype of activations and cache.
        int8: whether the weights are int8; otherwise they have `dtype`.

    Returns:
        The lowered program, and the abstract model and cache.
    """
    model = abstract_engine_weights(arch, mesh, jnp.dtype(dtype), int8=int8)
    replicated = NamedSharding(mesh, PartitionSpec())
    state = jax.eval_shape(lambda: decode_state.new_state(model, batch_size, 0))
    state = jax.tree.map(lambda leaf: _with_sharding(leaf, replicated), state)
    cache = jax.eval_shape(lambda: model.empty_cache(batch_size, cache_length, jnp.dtype(dtype)))
    axes = cache_axes(model.rules, arch.num_kv_heads)
    cache = jax.tree.map(lambda leaf: _with_sharding(leaf, model.rules.sharding(mesh, leaf.shape, axes)), cache)
    stop_ids = jax.ShapeDtypeStruct((1,), jnp.int32, sharding=replicated)
    program = engine_programs.decode_program(target_device_kind(), batch_size)
    return program.lower(model, state, cache, stop_ids, SamplingSteps(), 0), (model, cache)


def _with_sharding(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
