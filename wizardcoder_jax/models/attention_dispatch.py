"""Which way attention over packed rows goes: by two products, or by a kernel of the accelerator."""

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
    """Who sees whom in packed rows, without saying it for every pair."""

    ids: jax.Array  # [B, T] int32
    window: int | None  # a token sees this many latest ones; None: all earlier ones of its segment
    kernel: Literal["splash", "cudnn"]  # that computes it


def select_backend(
    kind: AttentionBackend, *, length: int, head_dim: int, dropout: float, dtype: jnp.dtype
) -> Literal["dot", "splash", "cudnn"]:
    """The way that attention goes.

    Args:
        kind: "splash" or "cudnn" demands that kernel, "auto" takes the one of the accelerator where it fits.
        length: T, places of a row.
        head_dim: H.
        dropout: of attention probabilities, which neither kernel has.
        dtype: of activations.

    Raises:
        InputError: a kernel is demanded where it does not fit.
    """
    wanted = kind if kind != "auto" else "splash" if is_tpu_target() else "cudnn" if is_gpu_target() else "dot"
    if wanted == "dot":
        return "dot"
    if wanted == "splash":
        misfits = unsupported_by_splash(length=length, head_dim=head_dim, dropout=dropout)
    else:
        misfits = unsupported_by_cudnn(length=length, head_dim=head_dim, dropout=dropout, dtype=dtype)
    if misfits and kind != "auto":
        raise InputError(f"attention {kind!r} does not fit {'; '.join(misfits)}; use 'dot' or 'auto'")
    return "dot" if misfits else wanted


def attend_packed(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segments: Segments, rules: ShardingRules
) -> jax.Array:
    """Softmax attention by a kernel, scores in float32; every device attends with its own rows and query heads.

    Padding is a segment like any other: each of its places sees itself at least, so that no softmax is over nothing.

    Args:
        queries: [B, T, N, H], times 1/sqrt(H); the G = N/K heads that share a kv head lie side by side.
        keys: [B, T, K, H].
        values: [B, T, K, H].
        segments: who sees whom.
        rules: how tensors are split over the mesh.

    Returns:
        [B, T, N, H].
    """
    group = queries.shape[2] // keys.shape[2]

    def part(queries: jax.Array, keys: jax.Array, values: jax.Array, ids: jax.Array, kv_heads: jax.Array) -> jax.Array:
        keys, values = (local_kv_heads(array, kv_heads, group, axis=2) for array in (keys, values))
        return KERNELS[segments.kernel](queries, keys, values, ids, segments.window)

    heads, kv_heads = ("batch", None, "heads", None), ("batch", None, "kv_heads", None)
    axes = (heads, kv_heads, kv_heads, ("batch", None), ("heads",))
    # a kernel does not say over which mesh axes its results vary, so that cannot be checked
    run = rules.shard_map(part, axes, (queries.shape, heads), check_vma=False)
    return run(queries, keys, values, segments.ids, jnp.arange(queries.shape[2]) // group)
