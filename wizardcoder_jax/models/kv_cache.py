"""Keys and values of earlier positions: how they lie on the mesh, how a step fills them in and attends to them."""

import functools
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from wizardcoder_jax.core.sharding import Axes, ShardingRules, is_cpu_target
from wizardcoder_jax.models.reference_attention import attend_shard

# Places are never negative, and no two of a step are the same: without these checks a scatter has fewer small steps.
SCATTER_HINTS: Any = {"unique_indices": True, "indices_are_sorted": True, "wrap_negative_indices": False}
SUBLANES = 8  # of a TPU: a product of one row, a lone query head of a kv head, would not be made by the matrix units


class LayerCache(NamedTuple):
    """Keys and values of one layer; slot s holds position s.

    Keys lie as the product with the queries reads them: in another order they would be copied whole, by XLA on CPU at every
    step, on TPU at the beginning and at the end of every decode call.
    """

    keys: jax.Array  # [B, K, S, H], or on CPU [B, K, H, S]
    values: jax.Array  # [B, K, S, H]

    @property
    def num_slots(self) -> int:
        """S."""
        return self.values.shape[2]

    @classmethod
    def zeros(cls, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Self:
        """Empty, of values of `shape`, [B, K, S, H]."""
        batch, num_kv_heads, slots, head_dim = shape
        keys = (batch, num_kv_heads, head_dim, slots) if is_cpu_target() else shape
        return cls(jnp.zeros(keys, dtype), jnp.zeros(shape, dtype))

    def resize(self, num_slots: int) -> Self:
        """With so many slots; of more, the last are cut off."""

        def fitted(array: jax.Array, axis: int) -> jax.Array:
            held = jax.lax.slice_in_dim(array, 0, min(num_slots, array.shape[axis]), axis=axis)
            widths = [(0, 0)] * array.ndim
            widths[axis] = (0, num_slots - held.shape[axis])
            return jnp.pad(held, widths)

        return type(self)(fitted(self.keys, 3 if is_cpu_target() else 2), fitted(self.values, 2))


class CacheView(NamedTuple):
    """What a layer sees of the cache."""

    held: LayerCache
    mask: jax.Array  # [B, T, S] bool, which slots a token sees


def cache_axes(rules: ShardingRules, num_kv_heads: int) -> Axes:
    """How a cache is split: by kv heads beside their weights, or else by sequences over all devices.

    A single kv head (multi-query attention) cannot be split; whole on every device it would be what a step reads most of. By
    sequences each device has the keys of its own, and the queries of a step, which are few, are brought to them and back
    (Pope et al., arXiv 2211.05102, section 3.3).
    """
    return ("batch" if rules.mesh_axes("kv_heads", num_kv_heads) else "cache_batch", "kv_heads", None, None)


def extend_and_attend(
    view: CacheView, queries: jax.Array, keys: jax.Array, values: jax.Array, positions: jax.Array, rules: ShardingRules
) -> tuple[jax.Array, LayerCache]:
    """Fills new keys and values in, and attends from the queries beside them; scores in float32.

    Args:
        view: the cache; each device fills in and reads its own part, in place.
        queries: [B, T, N, H]; the G = N/K heads that share a kv head lie side by side.
        keys: [B, T, K, H].
        values: [B, T, K, H].
        positions: [B, T], the slots that are filled; those past the last fill none.
        rules: how tensors are split over the mesh.

    Returns:
        [B, T, N, H], and the fuller cache.
    """
    (batch, _, num_heads, _), num_kv_heads = queries.shape, keys.shape[2]
    held = cache_axes(rules, num_kv_heads)
    rows = held[0]
    crossed = tuple(name for name in rules.mesh_axes(str(rows), batch) if name not in rules.mesh_axes("batch", batch))
    is_turned = bool(crossed and rules.mesh_axes("heads", num_heads))  # from some heads of all sequences to all of some
    asked = (rows, None, None, None) if crossed and not is_turned else ("batch", None, "heads", None)
    new, place = (rows, None, "kv_heads", None), (rows, None)
    axes = (asked, new, new, place, (rows, None, None), held, held, (None if crossed else "heads",))
    whole = ((queries.shape, asked), (view.held.keys.shape, held), (view.held.values.shape, held))
    part = functools.partial(
        _extend_part,
        group=num_heads // num_kv_heads,
        turned_over=crossed if is_turned else (),
    )
    filled = (array.astype(view.held.keys.dtype) for array in (keys, values))
    args = (queries, *filled, positions, view.mask, *view.held, jnp.arange(num_heads))
    attended, *cache = rules.shard_map(part, axes, whole)(*args)
    return attended, LayerCache(*cache)


def _extend_part(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    positions: jax.Array,
    mask: jax.Array,
    held_keys: jax.Array,
    held_values: jax.Array,
    heads: jax.Array,
    *,
    group: int,
    turned_over: tuple[str, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`extend_and_attend` on one device, for its sequences; `heads` [N]: which query heads it has of them."""
    if turned_over:
        queries = jax.lax.all_to_all(queries, turned_over, 0, 2, tiled=True)
    # one place a head: filled in by whole tokens, TPU would hold the heads of a token side by side, and read them slowly
    rows, kv_heads = jnp.arange(len(positions))[:, None, None], jnp.arange(keys.shape[2])[:, None]
    keys, values, slots = keys.swapaxes(1, 2), values.swapaxes(1, 2), positions[:, None]
    at_keys = (rows, kv_heads, slice(None), slots) if is_cpu_target() else (rows, kv_heads, slots)
    held_keys = held_keys.at[at_keys].set(keys, **SCATTER_HINTS)
    held_values = held_values.at[rows, kv_heads, slots].set(values, **SCATTER_HINTS)
    own_keys = held_keys if is_cpu_target() else held_keys.swapaxes(-1, -2)
    least_rows = 1 if is_cpu_target() else SUBLANES
    attended = attend_shard(queries, own_keys, held_values, mask, heads, group=group, least_rows=least_rows)
    if turned_over:
        attended = jax.lax.all_to_all(attended, turned_over, 2, 0, tiled=True)
    return attended, held_keys, held_values
