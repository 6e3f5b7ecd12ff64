"""Memory that sampling needs on each device, computed before any weight is loaded."""

import dataclasses
import math

import jax
import numpy as np
from jax.sharding import Mesh

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import bytes_per_device, is_cpu_target
from wizardcoder_jax.inference.prefix_cache import MAX_CACHED_PROMPTS
from wizardcoder_jax.models.kv_cache import cache_axes
from wizardcoder_jax.models.transformer import Block, Transformer

MIN_CAPACITY = 256  # number of tokens per sequence in the smallest KV cache
# TPUs multiply rows in groups of eight, and use the slower vector unit for fewer rows. GPUs also pad rows to whole tiles.
ROW_MULTIPLE = 8
NUM_PREFILL_CACHES = 2  # a prompt that is being prefilled has two KV caches: before a chunk and after it


def cache_capacities(max_length: int) -> tuple[int, ...]:
    """Return the capacities that a KV cache can have: MIN_CAPACITY, twice that, and so on; the last one is `max_length`."""
    lengths = [MIN_CAPACITY]
    while lengths[-1] < max_length:
        lengths.append(2 * lengths[-1])
    return (*lengths[:-1], max_length)


def padded_num_slots(num_slots: int) -> int:
    """Return the number of rows in the batch for `num_slots` slots: rounded up to a multiple of eight, except on CPU."""
    return num_slots if is_cpu_target() else -(-num_slots // ROW_MULTIPLE) * ROW_MULTIPLE


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineMemory:
    """Peak memory of an engine on each device.

    Attributes:
        weights_bytes: bytes of the weights.
        cache_bytes: bytes of all KV caches, including cached prompts, while the cache grows to its largest capacity.
        loading_bytes: bytes of temporary memory while the weights are loaded, before the caches exist: the largest array of
            stacked layers, which is being split into layers.
    """

    weights_bytes: int
    cache_bytes: int
    loading_bytes: int

    def __str__(self) -> str:
        return (
            f"{_format_bytes(self.weights_bytes)} of weights and at most {_format_bytes(self.cache_bytes)} of keys and values"
        )

    def check_fits(self, mesh: Mesh) -> None:
        """Check that the engine fits in the memory that the devices report. Devices that report none are not checked.

        Raises:
            InputError: a device has too little memory.
        """
        limit = smallest_limit(mesh)
        if limit is not None and self.weights_bytes + max(self.cache_bytes, self.loading_bytes) > limit:
            fix = "lower the batch size or the maximum length, store the weights in bfloat16 or int8, or shard them over a mesh"
            is_loading_larger = self.loading_bytes > self.cache_bytes
            loading = f" (before these, {_format_bytes(self.loading_bytes)} for loading)" if is_loading_larger else ""
            raise InputError(f"{self}{loading} do not fit on a device of {_format_bytes(limit)}; {fix}")


def smallest_limit(mesh: Mesh) -> int | None:
    """Return the bytes of memory of this process's smallest device, or None if no device reports it."""
    stats = [device.memory_stats() or {} for device in mesh.local_devices]
    return min((found["bytes_limit"] for found in stats if "bytes_limit" in found), default=None)


def engine_memory(
    model: Transformer, mesh: Mesh, *, num_slots: int, max_length: int, dtype: jax.typing.DTypeLike
) -> EngineMemory:
    """Return the memory that an engine needs on each device.

    Args:
        model: weights with unstacked blocks, or their shapes and shardings.
        mesh: mesh of the devices; it must also be the current mesh.
        num_slots: see `Engine`.
        max_length: see `Engine`.
        dtype: see `Engine`.
    """
    assert not isinstance(model.blocks, Block)
    arch, rules = model.arch, model.rules
    axes = cache_axes(rules, arch.num_kv_heads)

    def cache_bytes(batch: int, capacity: int) -> int:
        shape = (arch.num_layers, batch, arch.num_kv_heads, capacity, arch.head_dim)
        shard = rules.sharding(mesh, shape, axes).shard_shape(shape)
        return 2 * math.prod(shard) * np.dtype(dtype).itemsize

    *_, before, largest = (0, *cache_capacities(max_length))
    rows = padded_num_slots(num_slots)
    growing = sum(cache_bytes(rows, capacity) for capacity in (before, largest) if capacity)
    return EngineMemory(
        weights_bytes=bytes_per_device(model),
        cache_bytes=growing + (MAX_CACHED_PROMPTS + NUM_PREFILL_CACHES) * cache_bytes(1, largest),
        loading_bytes=arch.num_layers * max(bytes_per_device(leaf) for leaf in jax.tree.leaves(model.blocks[0])),
    )


def _format_bytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**27 else f"{num_bytes / 2**20:.2f} MiB"
