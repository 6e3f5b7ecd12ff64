"""Grouped-query attention with rotary or learned positions; multi-query and multi-head attention are special cases."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.attention_dispatch import Segments, attend_packed
from wizardcoder_jax.models.dropout import Dropout
from wizardcoder_jax.models.kv_cache import CacheView, LayerCache, extend_and_attend
from wizardcoder_jax.models.layers import Initializer, Projection, apply_fused
from wizardcoder_jax.models.reference_attention import attend
from wizardcoder_jax.models.remat import ATTENDED, QKV


class RotaryAngles(NamedTuple):
    """Cosine and sine of the rotary angles: two float32 arrays [B, T, 1, H/2]."""

    cos: jax.Array
    sin: jax.Array


def rotary_angles(positions: jax.Array, arch: ArchConfig) -> RotaryAngles:
    """Compute the rotary angles of `positions` [B, T]: position * theta^(-2i/H).

    Source: Su et al., arXiv 2104.09864, equation 15.
    """
    exponents = jnp.arange(0, arch.head_dim, 2, dtype=jnp.float32) / arch.head_dim
    frequencies = 1.0 / (arch.rope_theta**exponents * arch.rope_scale)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    return RotaryAngles(jnp.cos(angles), jnp.sin(angles))


def apply_rope(x: jax.Array, rope: RotaryAngles) -> jax.Array:
    """Apply rotary embeddings to x [B, T, *, H]: dim i is paired with dim i + H/2 (transformers' `rotate_half` layout)."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = (first * rope.cos - second * rope.sin, second * rope.cos + first * rope.sin)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


class Attention(nnx.Module):
    """Self-attention, either over complete sequences or over a KV cache of the earlier positions."""

    def __init__(self, init: Initializer, arch: ArchConfig, rules: ShardingRules) -> None:
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
        attention_mask: jax.Array | Segments | CacheView,
        rope: RotaryAngles | None,
        dropout: Dropout | None = None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """Compute attention for every position of `x`.

        Args:
            x: hidden states [B, T, D].
            positions: [B, T] position of each token, which is also the cache slot that it is written to.
            attention_mask: if `x` contains complete sequences, a mask [B, T, T] or, for a fused kernel, the segments; when
                decoding, a cache of the earlier positions.
            rope: rotary angles of `positions`, or None for learned positions.
            dropout: dropout of the attention probabilities, or None. Only supported with a [B, T, T] mask.

        Returns:
            The output [B, T, D], and the updated cache (None without a cache).
        """
        queries, keys, values = apply_fused(x, self.query, self.key, self.value)
        queries = self.rules.constrain(queries, "batch", None, "heads", None)
        keys = self.rules.constrain(keys, "batch", None, "kv_heads", None)
        values = self.rules.constrain(values, "batch", None, "kv_heads", None)
        if rope is not None:
            queries, keys = apply_rope(queries, rope), apply_rope(keys, rope)
        if isinstance(attention_mask, CacheView):
            attended, cache = extend_and_attend(attention_mask, queries, keys, values, positions, self.rules)
            return self.out(attended), cache
        if isinstance(attention_mask, Segments):  # scaled here, so that XLA fuses the scaling with the projection
            queries = (queries.astype(jnp.float32) / math.sqrt(queries.shape[-1])).astype(queries.dtype)
        queries, keys, values = (checkpoint_name(array, QKV) for array in (queries, keys, values))
        if isinstance(attention_mask, Segments):
            return self.out(attend_packed(queries, keys, values, attention_mask, self.rules)), None
        keys, values = keys.transpose(0, 2, 3, 1), values.swapaxes(1, 2)
        attended = attend(queries, keys, values, attention_mask, self.rules, dropout)
        return self.out(checkpoint_name(attended, ATTENDED)), None
