"""The programs that a run compiles, lowered for devices that need not exist: the train step and the sampler's decoding."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.sharding import RULES, target_device_kind
from wizardcoder_jax.inference import decode_state
from wizardcoder_jax.inference.engine_weights import abstract_engine_weights
from wizardcoder_jax.inference.request import SamplingSteps
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.kv_cache import cache_axes
from wizardcoder_jax.training.objectives.objective import Batch
from wizardcoder_jax.training.train_step import TrainState, abstract_state, make_step
from wizardcoder_jax.training.trainable import Partition, abstract_model


def lower_step(arch: ArchConfig, config: TrainConfig, mesh: Mesh) -> tuple[Any, TrainState]:
    """The train step of `train`, lowered, and the shapes of its state; `mesh` is the current one."""
    rules = RULES[config.strategy]
    model = abstract_model(arch, rules, config)
    state = abstract_state(model, config, mesh, rules)
    num, rows = config.accumulation, config.batch_size // config.accumulation
    sharding = NamedSharding(mesh, PartitionSpec(None, rules.batch))
    kinds, shapes = {"weights": jnp.float32, "seeds": jnp.uint32}, {"seeds": (num, rows)}
    fields: dict[str, Any] = {
        name: jax.ShapeDtypeStruct(
            shapes.get(name, (num, rows, config.max_length)), kinds.get(name, jnp.int32), sharding=sharding
        )
        for name in Batch._fields
    }
    return make_step(config, Partition.of(model, config), unroll=False).lower(state, Batch(**fields)), state


def lower_decode(arch: ArchConfig, mesh: Mesh, *, batch: int, num_slots: int, dtype: str, int8: bool) -> tuple[Any, Any]:
    """Greedy decoding of `batch` sequences with `num_slots` positions, lowered, and the shapes of model and cache."""
    model = abstract_engine_weights(arch, mesh, jnp.dtype(dtype), int8=int8)
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    slots = jax.eval_shape(lambda: decode_state.new_state(model, batch, 0))
    everywhere = NamedSharding(mesh, PartitionSpec())
    slots = jax.tree.map(lambda leaf: place(leaf, everywhere), slots)
    cache = jax.eval_shape(lambda: model.empty_cache(batch, num_slots, jnp.dtype(dtype)))
    axes = cache_axes(model.rules, arch.num_kv_heads)
    cache = jax.tree.map(lambda leaf: place(leaf, model.rules.sharding(mesh, leaf.shape, axes)), cache)
    ends = jax.ShapeDtypeStruct((1,), jnp.int32, sharding=everywhere)
    return decode_state.decode_program(target_device_kind(), batch).lower(model, slots, cache, ends, SamplingSteps(), 0), (
        model,
        cache,
    )
