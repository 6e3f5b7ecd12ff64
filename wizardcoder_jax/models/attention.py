"""Grouped-query attention (multi-query and multi-head are its ends) with rotary positions."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.attention_dispatch import Segments, attend_packed
from wizardcoder_jax.models.dropout import Dropout
from wizardcoder_jax.models.kv_cache import CacheView, LayerCache, extend_and_attend
from wizardcoder_jax.models.layers import Initializer, Projection, apply_fused
from wizardcoder_jax.models.reference_attention import attend
from wizardcoder_jax.models.remat import ATTENDED, QKV, keep


class RotaryAngles(NamedTuple):
    """Cosine and sine of the rotary angles, [B, T, 1, H/2] each, float32."""

    cos: jax.Array
    sin: jax.Array


def rotary_angles(positions: jax.Array, arch: ArchConfig) -> RotaryAngles:
    """Rotary angles of `positions` [B, T]: position * theta^(-2i/H) (Su et al., arXiv 2104.09864, equation 15)."""
    exponents = jnp.arange(0, arch.head_dim, 2, dtype=jnp.float32) / arch.head_dim
    frequencies = 1.0 / (arch.rope_theta**exponents * arch.rope_scale)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    return RotaryAngles(jnp.cos(angles), jnp.sin(angles))


def apply_rope(x: jax.Array, rotary_angles: RotaryAngles) -> jax.Array:
    """Rotates [B, T, *, H] by halves: dim i is paired with dim i + H/2 (transformers' `rotate_half` layout)."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = (first * rotary_angles.cos - second * rotary_angles.sin, second * rotary_angles.cos + first * rotary_angles.sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class Attention(nnx.Module):
    """Self-attention over the sequence itself, or over a cache of earlier positions."""

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
        sight: jax.Array | Segments | CacheView,
        turn: RotaryAngles | None,
        dropout: Dropout | None = None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """Attends from every place of `x`.

        Args:
            x: [B, T, D].
            positions: [B, T], the slots of the cache that this call fills.
            sight: what the places see. Of whole sequences: a mask [B, T, T], or their segments for a kernel; else a
                cache of what is before them.
            turn: rotary angles of `positions`, or None for learned positions.
            dropout: of the probabilities, or None; the mask alone has it.

        Returns:
            [B, T, D], and the cache, fuller, where there is one.
        """
        queries, keys, values = apply_fused(x, self.query, self.key, self.value)
        queries = self.rules.constrain(queries, "batch", None, "heads", None)
        keys = self.rules.constrain(keys, "batch", None, "kv_heads", None)
        values = self.rules.constrain(values, "batch", None, "kv_heads", None)
        if turn is not None:
            queries, keys = apply_rope(queries, turn), apply_rope(keys, turn)
        if isinstance(sight, CacheView):
            attended, cache = extend_and_attend(sight, queries, keys, values, positions, self.rules)
            return self.out(attended), cache
        if isinstance(sight, Segments):  # in one go with the product, and so kept
            queries = (queries.astype(jnp.float32) / math.sqrt(queries.shape[-1])).astype(queries.dtype)
        queries, keys, values = keep(queries, QKV), keep(keys, QKV), keep(values, QKV)
        if isinstance(sight, Segments):
            return self.out(attend_packed(queries, keys, values, sight, self.rules)), None
        keys, values = keys.transpose(0, 2, 3, 1), values.swapaxes(1, 2)
        return self.out(keep(attend(queries, keys, values, sight, self.rules, dropout), ATTENDED)), None
