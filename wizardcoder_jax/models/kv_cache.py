"""The KV cache: its layout, its sharding over the mesh, and attention to it."""

import functools
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from wizardcoder_jax.core.sharding import Axes, ShardingRules, is_cpu_target
from wizardcoder_jax.models.reference_attention import attend_shard

# Slots are never negative, and a step writes each slot at most once. Without these hints, XLA adds operations to check this.
SCATTER_HINTS: Any = {"unique_indices": True, "indices_are_sorted": True, "wrap_negative_indices": False}
# Number of sublanes of a TPU. Products with a single row (one query head per kv head) are padded to this number of rows,
# because TPU matrix units are not used for single rows.
SUBLANES = 8


class LayerCache(NamedTuple):
    """Keys and values of one layer; slot s stores position s.

    Keys are stored in the layout in which their product with the queries reads them. With another layout, XLA would copy all
    keys: on CPU at every step, on TPU at the start and end of every decode call.
    """

    keys: jax.Array  # [B, K, S, H], or on CPU [B, K, H, S]
    values: jax.Array  # [B, K, S, H]

    @property
    def num_slots(self) -> int:
        """Number of slots, S."""
        return self.values.shape[2]

    @classmethod
    def zeros(cls, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Self:
        """Create a cache filled with zeros, for values of `shape` [B, K, S, H]."""
        batch, num_kv_heads, num_slots, head_dim = shape
        keys = (batch, num_kv_heads, head_dim, num_slots) if is_cpu_target() else shape
        return cls(jnp.zeros(keys, dtype), jnp.zeros(shape, dtype))

    def resize(self, num_slots: int) -> Self:
        """Return the cache with `num_slots` slots, either padded or truncated at the end."""

        def resize_axis(array: jax.Array, axis: int) -> jax.Array:
            kept = jax.lax.slice_in_dim(array, 0, min(num_slots, array.shape[axis]), axis=axis)
            widths = [(0, 0)] * array.ndim
            widths[axis] = (0, num_slots - kept.shape[axis])
            return jnp.pad(kept, widths)

        return type(self)(resize_axis(self.keys, 3 if is_cpu_target() else 2), resize_axis(self.values, 2))


class CacheView(NamedTuple):
    """The cache of one layer, and a mask of the slots that each token attends to."""

    cache: LayerCache
    mask: jax.Array  # [B, T, S] bool, True where a token attends to a slot


def cache_axes(rules: ShardingRules, num_kv_heads: int) -> Axes:
    """Return the logical axes of a cache, which is split by kv heads if possible and otherwise by sequences.

    A single kv head (multi-query attention) cannot be split, and reading a replicated cache would dominate the time of a decode
    step. In a cache that is split by sequences over all devices, each device stores the keys of its own sequences. The queries
    of a step, which are small, are sent to these devices, and the results are sent back (Pope et al., arXiv 2211.05102,
    section 3.3).
    """
    return ("batch" if rules.mesh_axes("kv_heads", num_kv_heads) else "cache_batch", "kv_heads", None, None)


def extend_and_attend(
    view: CacheView, queries: jax.Array, keys: jax.Array, values: jax.Array, positions: jax.Array, rules: ShardingRules
) -> tuple[jax.Array, LayerCache]:
    """Write new keys and values to the cache, and compute attention to it, with scores in float32.

    Args:
        view: the cache and its mask; each device updates and reads only its own shard, in place.
        queries: [B, T, N, H]; the G = N/K query heads that share a kv head are adjacent.
        keys: [B, T, K, H].
        values: [B, T, K, H].
        positions: [B, T] slots to write; positions after the last slot are not written.
        rules: how tensors are split over the mesh.

    Returns:
        The attention output [B, T, N, H], and the updated cache.
    """
    (batch, _, num_heads, _), num_kv_heads = queries.shape, keys.shape[2]
    axes_cache = cache_axes(rules, num_kv_heads)
    batch_axis = axes_cache[0]
    # Mesh axes that split the sequences of the cache but not those of the queries.
    extra = tuple(name for name in rules.mesh_axes(str(batch_axis), batch) if name not in rules.mesh_axes("batch", batch))
    # If heads are split as well, an all-to-all exchanges some heads of all sequences for all heads of some sequences.
    needs_all_to_all = bool(extra and rules.mesh_axes("heads", num_heads))
    axes_queries = (batch_axis, None, None, None) if extra and not needs_all_to_all else ("batch", None, "heads", None)
    axes_new = (batch_axis, None, "kv_heads", None)
    axes_heads = (None if extra else "heads",)
    in_axes = (
        *(axes_queries, axes_new, axes_new, (batch_axis, None), (batch_axis, None, None)),
        *(axes_cache, axes_cache, axes_heads),
    )
    shapes = (queries.shape, view.cache.keys.shape, view.cache.values.shape)
    out = tuple(zip(shapes, (axes_queries, axes_cache, axes_cache), strict=True))
    extend = functools.partial(
        _extend_shard,
        group=num_heads // num_kv_heads,
        all_to_all_axes=extra if needs_all_to_all else (),
    )
    new = (array.astype(view.cache.keys.dtype) for array in (keys, values))
    args = (queries, *new, positions, view.mask, *view.cache, jnp.arange(num_heads))
    attended, *cache = rules.shard_map(extend, in_axes, out)(*args)
    return attended, LayerCache(*cache)


def _extend_shard(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    positions: jax.Array,
    mask: jax.Array,
    cached_keys: jax.Array,
    cached_values: jax.Array,
    heads: jax.Array,
    *,
    group: int,
    all_to_all_axes: tuple[str, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compute `extend_and_attend` on one device. `heads` [N] are the indices of the query heads that it handles."""
    if all_to_all_axes:
        queries = jax.lax.all_to_all(queries, all_to_all_axes, 0, 2, tiled=True)
    # Write head by head. If whole tokens were written, TPUs would store the heads of a token together, which makes reads slow.
    sequences, kv_heads = jnp.arange(len(positions))[:, None, None], jnp.arange(keys.shape[2])[:, None]
    keys, values, slots = keys.swapaxes(1, 2), values.swapaxes(1, 2), positions[:, None]
    at_keys = (sequences, kv_heads, slice(None), slots) if is_cpu_target() else (sequences, kv_heads, slots)
    cached_keys = cached_keys.at[at_keys].set(keys, **SCATTER_HINTS)
    cached_values = cached_values.at[sequences, kv_heads, slots].set(values, **SCATTER_HINTS)
    keys_for_product = cached_keys if is_cpu_target() else cached_keys.swapaxes(-1, -2)
    min_rows = 1 if is_cpu_target() else SUBLANES
    attended = attend_shard(queries, keys_for_product, cached_values, mask, heads, group=group, min_rows=min_rows)
    if all_to_all_axes:
        attended = jax.lax.all_to_all(attended, all_to_all_axes, 2, 0, tiled=True)
    return attended, cached_keys, cached_values
