"""Attention as two matrix products that stores all scores, for training without a fused kernel and for all decoding."""

import functools
import math

import jax
import jax.numpy as jnp

from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.models.dropout import ATTENTION, Dropout, fold_in_rows, scale_kept

NUM_CHUNKS, MIN_CHUNK = 4, 64  # number of query chunks and minimum queries per chunk; 4 chunks skip 3/8 of the scores


def causal_mask(query_positions: jax.Array, key_positions: jax.Array, window: int | None) -> jax.Array:
    """Return the mask of causal attention from queries at positions [..., T] to keys at positions [S].

    A query attends to keys at its own and at earlier positions; with a window, only to the last `window` of these positions.
    The window follows transformers (masking_utils.py, sliding_window_overlay): key > query - window.

    Returns:
        [..., T, S] bool, True where a query attends to a key.
    """
    distance = query_positions[..., :, None] - key_positions
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def packed_mask(segment_ids: jax.Array, window: int | None) -> jax.Array:
    """Return the attention mask of packed sequences, causal and within segments: segment ids [B, T] -> [B, T, T] bool."""
    positions = jnp.arange(segment_ids.shape[1])
    return (segment_ids[:, :, None] == segment_ids[:, None, :]) & causal_mask(positions, positions, window)


def attend(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    rules: ShardingRules,
    dropout: Dropout | None = None,
) -> jax.Array:
    """Compute softmax attention with scores in float32.

    Each device handles its own query heads. Key/value heads that the mesh cannot split are replicated, and each device selects
    those that its query heads share. Without the shard_map, the compiler would split the key/value heads and gather them again.

    Args:
        queries: [B, T, N, H]; the G = N/K query heads that share a kv head are adjacent.
        keys: [B, K, H, S].
        values: [B, K, S, H].
        mask: causal mask [B, T, T] bool, True where a query attends to a key.
        rules: how tensors are split over the mesh.
        dropout: dropout of the attention probabilities, or None.

    Returns:
        The attention output, [B, T, N, H].
    """
    num_heads, num_kv_heads = queries.shape[2], keys.shape[1]
    group = num_heads // num_kv_heads
    heads, kv_heads = ("batch", None, "heads", None), ("batch", "kv_heads", None, None)
    axes = (heads, kv_heads, kv_heads, ("batch", None, None), ("heads",))
    args = (queries, keys, values, mask, jnp.arange(num_heads))
    if dropout is None:
        return rules.shard_map(functools.partial(_attend_in_chunks, group=group), axes, (queries.shape, heads))(*args)
    function = functools.partial(attend_shard, group=group, rate=dropout.rate)
    run = rules.shard_map(function, (*axes, ("batch",)), (queries.shape, heads))
    return run(*args, dropout.keys_at(ATTENTION))


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
    min_rows: int = 1,
) -> jax.Array:
    """Compute `attend` on one device.

    Args:
        queries: [B, T, N, H], where N is the number of query heads of the device.
        keys: [B, K, H, S].
        values: [B, K, S, H].
        mask: [B, T, S] bool, True where a query attends to a key.
        heads: [N] indices of the device's query heads.
        row_keys: [B] PRNG keys of dropout, one per sequence; None for no dropout.
        group: G, the number of query heads per kv head in the model.
        rate: fraction of probabilities that dropout sets to 0.
        min_rows: number of rows to which a product with a single row per kv head is padded.
    """
    batch, length, num_heads, head_dim = queries.shape
    keys, values = (local_kv_heads(array, heads // group, group, axis=1) for array in (keys, values))
    grouped = queries.reshape(batch, length, keys.shape[1], -1, head_dim).swapaxes(1, 2)
    if length * grouped.shape[3] == 1:
        grouped = jnp.pad(grouped, ((0, 0), (0, 0), (0, 0), (0, min_rows - 1), (0, 0)))
    scores = jnp.einsum("BKTGH,BKHS->BKTGS", grouped, keys, preferred_element_type=jnp.float32) / math.sqrt(head_dim)
    scores = jnp.where(mask[:, None, :, None], scores, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    if row_keys is not None:
        draw = lambda key: jax.random.bernoulli(key, 1 - rate, (length, mask.shape[-1]))  # noqa: E731
        kept = jax.vmap(lambda head: jax.vmap(draw)(fold_in_rows(row_keys, head)), out_axes=1)(heads)  # [B, N, T, S]
        kept = kept.reshape(batch, keys.shape[1], -1, *kept.shape[2:]).swapaxes(2, 3)
        probabilities = scale_kept(probabilities, kept, rate)
    attended = jnp.einsum("BKTGS,BKSH->BKTGH", probabilities, values)[:, :, :, : num_heads // keys.shape[1]]
    return attended.swapaxes(1, 2).reshape(batch, length, num_heads, head_dim)


def _attend_in_chunks(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, heads: jax.Array, *, group: int
) -> jax.Array:
    """Compute `attend_shard` for a causal mask, in chunks of queries. A chunk uses only the keys up to its last query."""
    length = queries.shape[1]
    chunk = length // NUM_CHUNKS if length % NUM_CHUNKS == 0 and length >= NUM_CHUNKS * MIN_CHUNK else length
    attended = []
    for end in range(chunk, length + 1, chunk):
        own = slice(end - chunk, end)
        visible = (keys[..., :end], values[:, :, :end], mask[:, own, :end])
        attended.append(attend_shard(queries[:, own], *visible, heads, group=group))
    return jnp.concatenate(attended, axis=1)


def local_kv_heads(array: jax.Array, kv_heads: jax.Array, group: int, axis: int) -> jax.Array:
    """Select the kv heads that a device's query heads share, if the mesh could not split the kv heads.

    Args:
        array: keys or values.
        kv_heads: [N] index of the kv head of each query head of the device.
        group: G, the number of query heads per kv head in the model.
        axis: dim of the kv heads in `array`.
    """
    num_heads = len(kv_heads)
    if not 1 < array.shape[axis] != num_heads // group:
        return array
    return jnp.take(array, kv_heads[:: math.gcd(group, num_heads)], axis=axis)  # adjacent query heads share a kv head
