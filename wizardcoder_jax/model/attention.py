"""Grouped-query attention (multi-query and multi-head are its ends), rotary positions, one layer's key/value cache."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from wizardcoder_jax.arch import ArchConfig
from wizardcoder_jax.model.layers import Initializer, Projection
from wizardcoder_jax.model.noise import ATTENTION, Dropout, fold, scale_kept
from wizardcoder_jax.model.splash import Segments, own_kv_heads, splash_attend
from wizardcoder_jax.sharding import Rules

NUM_CHUNKS, MIN_CHUNK = 4, 64  # of queries: four chunks spare three eighths of the scores


class LayerCache(NamedTuple):
    """Keys and values of one layer; slot s holds position s.

    They lie as the two matrix products of attention read them: in another order XLA on CPU transposes both at every step.
    """

    keys: jax.Array  # [B, K, H, S]
    values: jax.Array  # [B, K, S, H]


class Rotation(NamedTuple):
    """Cosine and sine of the rotary angles, [B, T, 1, H/2] each, float32."""

    cos: jax.Array
    sin: jax.Array


def rotation(positions: jax.Array, arch: ArchConfig) -> Rotation:
    """Rotary angles of `positions` [B, T]: position * theta^(-2i/H) (Su et al., arXiv 2104.09864, equation 15)."""
    exponents = jnp.arange(0, arch.head_dim, 2, dtype=jnp.float32) / arch.head_dim
    frequencies = 1.0 / (arch.rope_theta**exponents * arch.rope_scale)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotates [B, T, *, H] by halves: dim i is paired with dim i + H/2 (transformers' `rotate_half` layout)."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = (first * rotation.cos - second * rotation.sin, second * rotation.cos + first * rotation.sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


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


def fill(cache: LayerCache, keys: jax.Array, values: jax.Array, positions: jax.Array, rules: Rules) -> LayerCache:
    """The cache with keys and values [B, T, K, H] in the slots `positions` [B, T]; each device fills in its own."""

    def part(old_keys: jax.Array, old_values: jax.Array, keys: jax.Array, values: jax.Array, slots: jax.Array) -> Any:
        rows = jnp.arange(len(slots))[:, None]
        return old_keys.at[rows, :, :, slots].set(keys), old_values.at[rows, :, slots].set(values)

    held, new = ("batch", "kv_heads", None, None), ("batch", None, "kv_heads", None)
    filled = rules.per_device(part, (held, held, new, new, ("batch", None)), tuple((old.shape, held) for old in cache))
    return LayerCache(*filled(*cache, keys.astype(cache.keys.dtype), values.astype(cache.values.dtype), positions))


def attend(
    queries: jax.Array,
    cache: LayerCache,
    mask: jax.Array,
    rules: Rules,
    dropout: Dropout | None = None,
    causal: bool = False,
) -> jax.Array:
    """Softmax attention, scores in float32.

    Each device attends with its own query heads; key/value heads that the mesh cannot split are whole on every device, and
    it takes from them those that its query heads share. Left to the compiler, they would be split and gathered again.

    Args:
        queries: [B, T, N, H]; the G = N/K heads that share a kv head lie side by side.
        cache: keys and values.
        mask: [B, T, S] bool, True where a query sees a key.
        rules: how tensors are split over the mesh.
        dropout: of the probabilities, or None.
        causal: S is T, and no query sees a later key.

    Returns:
        [B, T, N, H].
    """
    num_heads, num_kv_heads = queries.shape[2], cache.keys.shape[1]
    group = num_heads // num_kv_heads
    heads, kv_heads = ("batch", None, "heads", None), ("batch", "kv_heads", None, None)
    axes = (heads, kv_heads, kv_heads, ("batch", None, None), ("heads",))
    args = (queries, cache.keys, cache.values, mask, jnp.arange(num_heads))
    if dropout is None:
        attend_part = _attend_in_chunks if causal else _attend_part
        return rules.per_device(functools.partial(attend_part, group=group), axes, (queries.shape, heads))(*args)
    part = functools.partial(_attend_part, group=group, rate=dropout.rate)
    return rules.per_device(part, (*axes, ("batch",)), (queries.shape, heads))(*args, dropout.at(ATTENTION))


def _attend_part(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    heads: jax.Array,
    row_keys: jax.Array | None = None,
    *,
    group: int,
    rate: float = 0.0,
) -> jax.Array:
    """`attend` on one device: `heads` [N] says which query heads it has, `group` is the whole's G.

    `row_keys` [B] draw which probabilities are dropped at `rate`, every head's by itself; without them none is.
    """
    batch, length, num_heads, head_dim = queries.shape
    keys, values = (own_kv_heads(array, heads // group, group, axis=1) for array in (keys, values))
    grouped = queries.reshape(batch, length, keys.shape[1], -1, head_dim).swapaxes(1, 2)
    scores = jnp.einsum("BKTGH,BKHS->BKTGS", grouped, keys, preferred_element_type=jnp.float32) / math.sqrt(head_dim)
    scores = jnp.where(mask[:, None, :, None], scores, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    if row_keys is not None:
        draw = lambda key: jax.random.bernoulli(key, 1 - rate, (length, mask.shape[-1]))  # noqa: E731
        kept = jax.vmap(lambda head: jax.vmap(draw)(fold(row_keys, head)), out_axes=1)(heads)  # [B, N, T, S]
        kept = kept.reshape(batch, keys.shape[1], -1, *kept.shape[2:]).swapaxes(2, 3)
        probabilities = scale_kept(probabilities, kept, rate)
    attended = jnp.einsum("BKTGS,BKSH->BKTGH", probabilities, values)
    return attended.swapaxes(1, 2).reshape(batch, length, num_heads, head_dim)


def _attend_in_chunks(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, heads: jax.Array, *, group: int
) -> jax.Array:
    """`_attend_part` where no query sees a later key: each chunk of queries has the keys up to its own end."""
    length = queries.shape[1]
    chunk = length // NUM_CHUNKS if length % NUM_CHUNKS == 0 and length >= NUM_CHUNKS * MIN_CHUNK else length
    attended = []
    for end in range(chunk, length + 1, chunk):
        own = slice(end - chunk, end)
        seen = (keys[..., :end], values[:, :, :end], mask[:, own, :end])
        attended.append(_attend_part(queries[:, own], *seen, heads, group=group))
    return jnp.concatenate(attended, axis=1)


class Attention(nnx.Module):
    """Self-attention over the sequence itself, or over a cache of earlier positions."""

    def __init__(self, init: Initializer, arch: ArchConfig, rules: Rules) -> None:
        d, n, k, h = arch.embed_dim, arch.num_heads, arch.num_kv_heads, arch.head_dim
        self.query = Projection(init, (d, n, h), ("embed", "heads", None), 1, arch.bias != "none", rules)
        self.key = Projection(init, (d, k, h), ("embed", "kv_heads", None), 1, arch.bias != "none", rules)
        self.value = Projection(init, (d, k, h), ("embed", "kv_heads", None), 1, arch.bias != "none", rules)
        self.out = Projection(init, (n, h, d), ("heads", None, "embed"), 2, arch.bias == "all", rules)
        self.rules = rules

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: jax.Array | Segments,
        turn: Rotation | None,
        cache: LayerCache | None,
        dropout: Dropout | None = None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """Attends from every place of `x`.

        Args:
            x: [B, T, D].
            positions: [B, T], the slots of the cache that this call fills.
            mask: [B, T, S], or the segments of whole sequences, for the splash kernel.
            turn: rotary angles of `positions`, or None for learned positions.
            cache: earlier keys and values; None when `x` is the whole sequence.
            dropout: of the probabilities, or None; the splash kernel has none.

        Returns:
            [B, T, D], and the keys and values that it attended to (None with the kernel, which is for training).
        """
        queries = self.rules.constrain(self.query(x), "batch", None, "heads", None)
        keys = self.rules.constrain(self.key(x), "batch", None, "kv_heads", None)
        values = self.rules.constrain(self.value(x), "batch", None, "kv_heads", None)
        if turn is not None:
            queries, keys = rotate(queries, turn), rotate(keys, turn)
        if isinstance(mask, Segments):
            return self.out(splash_attend(queries, keys, values, mask, self.rules)), None
        causal = cache is None
        if cache is None:
            cache = LayerCache(keys.transpose(0, 2, 3, 1), values.swapaxes(1, 2))
        else:
            cache = fill(cache, keys, values, positions, self.rules)
        return self.out(attend(queries, cache, mask, self.rules, dropout, causal)), cache
