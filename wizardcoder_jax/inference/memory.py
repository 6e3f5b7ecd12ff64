"""How much memory sampling takes, known before a weight is loaded."""

import dataclasses
import math

import jax
import numpy as np
from jax.sharding import Mesh

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import bytes_per_device, is_cpu_target
from wizardcoder_jax.inference.prefix_cache import NUM_KEPT
from wizardcoder_jax.models.kv_cache import cache_axes
from wizardcoder_jax.models.transformer import Block, Transformer

LEAST_CAPACITY = 256  # of the cache, in tokens of a sequence
ROWS = 8  # a TPU multiplies rows in eights, and fewer by its vector unit instead; GPUs fill up a tile as well
NUM_AT_WORK = 2  # caches of the prompt that is prefilled: before a piece and after it


def capacities_up_to(max_length: int) -> tuple[int, ...]:
    """The lengths that a cache may have: doubling, the last is `max_length`."""
    lengths = [LEAST_CAPACITY]
    while lengths[-1] < max_length:
        lengths.append(2 * lengths[-1])
    return (*lengths[:-1], max_length)


def num_rows(num_slots: int) -> int:
    """Sequences that are computed with for so many slots: a multiple of eight, but on CPU."""
    return num_slots if is_cpu_target() else -(-num_slots // ROWS) * ROWS


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineMemory:
    """What lies on each device at the most.

    Attributes:
        weights_bytes: of the model.
        cache_bytes: of keys and values, of prompts that are kept too, while the cache grows to its greatest length.
        loading_bytes: beside the weights, before there is a cache: the largest array of all layers, while it is taken apart.
    """

    weights_bytes: int
    cache_bytes: int
    loading_bytes: int

    def __str__(self) -> str:
        return f"{_shown(self.weights_bytes)} of weights and at most {_shown(self.cache_bytes)} of keys and values"

    def require_room(self, mesh: Mesh) -> None:
        """Compares with what the devices say that they have; some say nothing.

        Raises:
            InputError: it is not enough.
        """
        limit = least_limit(mesh)
        if limit is not None and self.weights_bytes + max(self.cache_bytes, self.loading_bytes) > limit:
            ways = "lower the batch size or the greatest length, hold weights in bfloat16 or int8, or split them over a mesh"
            loading = (
                f" (before these, {_shown(self.loading_bytes)} for loading)" if self.loading_bytes > self.cache_bytes else ""
            )
            raise InputError(f"{self}{loading} do not fit on a device of {_shown(limit)}; {ways}")


def least_limit(mesh: Mesh) -> int | None:
    """Bytes of the smallest device of this process; None where they do not say."""
    stats = [device.memory_stats() or {} for device in mesh.local_devices]
    return min((found["bytes_limit"] for found in stats if "bytes_limit" in found), default=None)


def memory_of(model: Transformer, mesh: Mesh, *, num_slots: int, max_length: int, dtype: jax.typing.DTypeLike) -> EngineMemory:
    """What an engine will take on each device of the current mesh, `mesh`.

    Args:
        model: the weights, blocks apart, or shapes that say how they will lie.
        mesh: of devices.
        num_slots: as for `Engine`.
        max_length: as for `Engine`.
        dtype: as for `Engine`.
    """
    assert not isinstance(model.blocks, Block)
    arch, rules = model.arch, model.rules
    axes = cache_axes(rules, arch.num_kv_heads)

    def cache_bytes(batch: int, capacity: int) -> int:
        shape = (arch.num_layers, batch, arch.num_kv_heads, capacity, arch.head_dim)
        part = rules.sharding(mesh, shape, axes).shard_shape(shape)
        return 2 * math.prod(part) * np.dtype(dtype).itemsize

    *_, before, whole = (0, *capacities_up_to(max_length))
    rows = num_rows(num_slots)
    growing = sum(cache_bytes(rows, capacity) for capacity in (before, whole) if capacity)
    return EngineMemory(
        weights_bytes=bytes_per_device(model),
        cache_bytes=growing + (NUM_KEPT + NUM_AT_WORK) * cache_bytes(1, whole),
        loading_bytes=arch.num_layers * max(bytes_per_device(leaf) for leaf in jax.tree.leaves(model.blocks[0])),
    )


def _shown(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**27 else f"{num_bytes / 2**20:.2f} MiB"
