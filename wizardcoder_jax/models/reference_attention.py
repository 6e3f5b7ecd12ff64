"""Attention by two matrix products with all scores between them: for training off TPU, for decoding everywhere."""

import functools
import math

import jax
import jax.numpy as jnp

from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.models.dropout import ATTENTION, Dropout, fold_keys, scale_kept

NUM_CHUNKS, MIN_CHUNK = 4, 64  # of queries: four chunks spare three eighths of the scores


def causal_mask(query_places: jax.Array, key_places: jax.Array, window: int | None) -> jax.Array:
    """Whether a query at [..., T] sees a key at [S]: no later one, and of `window` places the last, its own among them.

    The rule of the window is that of transformers (masking_utils.py, sliding_window_overlay): key > query - window.

    Returns:
        [..., T, S] bool.
    """
    distance = query_places[..., :, None] - key_places
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def packed_mask(segment_ids: jax.Array, window: int | None) -> jax.Array:
    """Who sees whom in packed rows: [B, T] segment ids -> [B, T, T] bool, causal and within the segment."""
    places = jnp.arange(segment_ids.shape[1])
    return (segment_ids[:, :, None] == segment_ids[:, None, :]) & causal_mask(places, places, window)


def attend(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    rules: ShardingRules,
    dropout: Dropout | None = None,
) -> jax.Array:
    """Softmax attention, scores in float32.

    Each device attends with its own query heads; key/value heads that the mesh cannot split are whole on every device, and
    it takes from them those that its query heads share. Left to the compiler, they would be split and gathered again.

    Args:
        queries: [B, T, N, H]; the G = N/K heads that share a kv head lie side by side.
        keys: [B, K, H, S].
        values: [B, K, S, H].
        mask: [B, T, T] bool, True where a query sees a key, which is never a later one.
        rules: how tensors are split over the mesh.
        dropout: of the probabilities, or None.

    Returns:
        [B, T, N, H].
    """
    num_heads, num_kv_heads = queries.shape[2], keys.shape[1]
    group = num_heads // num_kv_heads
    heads, kv_heads = ("batch", None, "heads", None), ("batch", "kv_heads", None, None)
    axes = (heads, kv_heads, kv_heads, ("batch", None, None), ("heads",))
    args = (queries, keys, values, mask, jnp.arange(num_heads))
    if dropout is None:
        return rules.shard_map(functools.partial(_attend_in_chunks, group=group), axes, (queries.shape, heads))(*args)
    part = functools.partial(attend_shard, group=group, rate=dropout.rate)
    return rules.shard_map(part, (*axes, ("batch",)), (queries.shape, heads))(*args, dropout.at(ATTENTION))


def attend_shard(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    heads: jax.Array,
    row_keys: jax.Array | None = None,
    *,
    group: int,
    rate: float = 0.0,
    least_rows: int = 1,
) -> jax.Array:
    """`attend` on one device: `heads` [N] says which query heads it has, `group` is the whole's G.

    `row_keys` [B] draw which probabilities are dropped at `rate`, every head's by itself; without them none is. A product of
    one row a kv head is made with `least_rows` of them.
    """
    batch, length, num_heads, head_dim = queries.shape
    keys, values = (local_kv_heads(array, heads // group, group, axis=1) for array in (keys, values))
    grouped = queries.reshape(batch, length, keys.shape[1], -1, head_dim).swapaxes(1, 2)
    if length * grouped.shape[3] == 1:
        grouped = jnp.pad(grouped, ((0, 0), (0, 0), (0, 0), (0, least_rows - 1), (0, 0)))
    scores = jnp.einsum("BKTGH,BKHS->BKTGS", grouped, keys, preferred_element_type=jnp.float32) / math.sqrt(head_dim)
    scores = jnp.where(mask[:, None, :, None], scores, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    if row_keys is not None:
        draw = lambda key: jax.random.bernoulli(key, 1 - rate, (length, mask.shape[-1]))  # noqa: E731
        kept = jax.vmap(lambda head: jax.vmap(draw)(fold_keys(row_keys, head)), out_axes=1)(heads)  # [B, N, T, S]
        kept = kept.reshape(batch, keys.shape[1], -1, *kept.shape[2:]).swapaxes(2, 3)
        probabilities = scale_kept(probabilities, kept, rate)
    attended = jnp.einsum("BKTGS,BKSH->BKTGH", probabilities, values)[:, :, :, : num_heads // keys.shape[1]]
    return attended.swapaxes(1, 2).reshape(batch, length, num_heads, head_dim)


def _attend_in_chunks(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, heads: jax.Array, *, group: int
) -> jax.Array:
    """`attend_shard` where no query sees a later key: each chunk of queries has the keys up to its own end."""
    length = queries.shape[1]
    chunk = length // NUM_CHUNKS if length % NUM_CHUNKS == 0 and length >= NUM_CHUNKS * MIN_CHUNK else length
    attended = []
    for end in range(chunk, length + 1, chunk):
        own = slice(end - chunk, end)
        seen = (keys[..., :end], values[:, :, :end], mask[:, own, :end])
        attended.append(attend_shard(queries[:, own], *seen, heads, group=group))
    return jnp.concatenate(attended, axis=1)


def local_kv_heads(array: jax.Array, kv_heads: jax.Array, group: int, axis: int) -> jax.Array:
    """The kv heads along `axis` that a device's query heads share; those that the mesh cannot split are whole on every device.

    Args:
        array: keys or values.
        kv_heads: [N], which kv head each query head of the device has.
        group: G of the whole model.
        axis: where the kv heads are.
    """
    num_heads = len(kv_heads)
    if not 1 < array.shape[axis] != num_heads // group:
        return array
    return jnp.take(array, kv_heads[:: math.gcd(group, num_heads)], axis=axis)  # so many side by side have the same
