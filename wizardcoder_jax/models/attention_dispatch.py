"""Selection of the attention back end for packed sequences: plain matrix products, or a fused kernel of the accelerator."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.models.cudnn_attention import cudnn_attend, is_gpu_target, unsupported_by_cudnn
from wizardcoder_jax.models.reference_attention import local_kv_heads
from wizardcoder_jax.models.splash_attention import is_tpu_target, splash_attend, unsupported_by_splash

AttentionBackend = Literal["auto", "dot", "splash", "cudnn"]
KERNELS = {"splash": splash_attend, "cudnn": cudnn_attend}


class Segments(NamedTuple):
    """A causal mask within segments for a fused kernel, stored as segment ids instead of a [T, T] array."""

    ids: jax.Array  # [B, T] int32 segment id of each token
    window: int | None  # number of latest tokens that a token attends to; None: all earlier tokens of its segment
    kernel: Literal["splash", "cudnn"]  # fused kernel to use


def select_backend(
    kind: AttentionBackend, *, length: int, head_dim: int, dropout: float, dtype: jnp.dtype
) -> Literal["dot", "splash", "cudnn"]:
    """Select the attention back end.

    Args:
        kind: "splash" or "cudnn" requires that kernel; "auto" uses the accelerator's kernel if it supports the shapes.
        length: T, the number of positions per sequence.
        head_dim: H, the size of a head.
        dropout: dropout rate of the attention probabilities. Neither kernel supports dropout.
        dtype: dtype of activations.

    Raises:
        InputError: the kernel that `kind` requires does not support these shapes.
    """
    wanted = kind if kind != "auto" else "splash" if is_tpu_target() else "cudnn" if is_gpu_target() else "dot"
    if wanted == "dot":
        return "dot"
    if wanted == "splash":
        unsupported = unsupported_by_splash(length=length, head_dim=head_dim, dropout=dropout)
    else:
        unsupported = unsupported_by_cudnn(length=length, head_dim=head_dim, dropout=dropout, dtype=dtype)
    if unsupported and kind != "auto":
        raise InputError(f"attention {kind!r} does not support {'; '.join(unsupported)}; use 'dot' or 'auto'")
    return "dot" if unsupported else wanted


def attend_packed(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segments: Segments, rules: ShardingRules
) -> jax.Array:
    """Compute softmax attention with a fused kernel. Each device handles its own sequences and query heads.

    Scores are computed in float32. Padding tokens form a segment of their own: each attends at least to itself, so that no
    softmax is empty.

    Args:
        queries: [B, T, N, H], already multiplied by 1/sqrt(H); the G = N/K query heads that share a kv head are adjacent.
        keys: [B, T, K, H].
        values: [B, T, K, H].
        segments: the attention mask.
        rules: how tensors are split over the mesh.

    Returns:
        The attention output, [B, T, N, H].
    """
    group = queries.shape[2] // keys.shape[2]

    def attend_shard(queries: jax.Array, keys: jax.Array, values: jax.Array, ids: jax.Array, kv_heads: jax.Array) -> jax.Array:
        keys, values = (local_kv_heads(array, kv_heads, group, axis=2) for array in (keys, values))
        return KERNELS[segments.kernel](queries, keys, values, ids, segments.window)

    heads, kv_heads = ("batch", None, "heads", None), ("batch", None, "kv_heads", None)
    axes = (heads, kv_heads, kv_heads, ("batch", None), ("heads",))
    # check_vma is off, because the kernels do not declare over which mesh axes their results vary.
    run = rules.shard_map(attend_shard, axes, (queries.shape, heads), check_vma=False)
    return run(queries, keys, values, segments.ids, jnp.arange(queries.shape[2]) // group)
