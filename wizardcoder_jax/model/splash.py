"""Attention over packed rows by JAX's splash kernel for TPU: blockwise, so no scores and no masks of [T, T] are held."""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from wizardcoder_jax.model.remat import ATTENDED
from wizardcoder_jax.sharding import Rules, device_kind

LANES = 128  # of a TPU's vector unit: the kernel's blocks are multiples of it (splash_attention_kernel.py, NUM_LANES)
# Places of a block, the largest that divides the row is taken, and how many keys of it are multiplied at a time. For rows of
# 2048 the compiler schedules for v5e 15 % fewer instructions forward and 28 % fewer backward than with blocks of 512 and a pass
# of its own for the gradient of queries: more is masked, but less is read, and scores are computed once less.
BLOCKS, COMPUTED = (1024, 512, 256, 128), 512


class Segments(NamedTuple):
    """Who sees whom in packed rows, without saying it for every pair."""

    ids: jax.Array  # [B, T] int32
    window: int | None  # a token sees this many latest ones; None: all earlier ones of its segment
    kernel: Literal["splash", "cudnn"]  # that computes it


def on_tpu() -> bool:
    """Whether what is traced now is for a TPU."""
    return device_kind().startswith("TPU")


def splash_misfits(*, length: int, head_dim: int, dropout: float) -> list[str]:
    """Why the kernel does not fit; nothing where it does. Arguments as of `kernels.chosen`."""
    found = []
    if length % LANES:
        found.append(f"rows of {length} tokens, not of a multiple of {LANES}")
    if head_dim % (LANES // 2):
        found.append(f"head_dim {head_dim}, not a multiple of {LANES // 2}")
    if dropout:
        found.append(f"dropout {dropout} of attention probabilities, which the kernel lacks")
    return found


def splash_attend(queries: jax.Array, keys: jax.Array, values: jax.Array, segments: Segments, rules: Rules) -> jax.Array:
    """Softmax attention, scores in float32; every device attends with its own rows and query heads.

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
    num_heads, num_kv_heads = queries.shape[2], keys.shape[2]
    group = num_heads // num_kv_heads
    heads, kv_heads = ("batch", None, "heads", None), ("batch", None, "kv_heads", None)
    part = functools.partial(_part, group=group, window=segments.window, interpret=not on_tpu())
    # a kernel does not say over which mesh axes its results vary, so that cannot be checked
    run = rules.per_device(
        part, (heads, kv_heads, kv_heads, ("batch", None), ("heads",)), (queries.shape, heads), check_vma=False
    )
    return run(queries, keys, values, segments.ids, jnp.arange(num_heads) // group)


def _part(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    segment_ids: jax.Array,
    kv_heads: jax.Array,
    *,
    group: int,
    window: int | None,
    interpret: bool,
) -> jax.Array:
    """`splash_attend` on one device; `kv_heads` [N]: which each of its query heads has; `group`: the whole's G."""
    _, length, num_heads, _ = queries.shape
    keys, values = own_kv_heads(keys, kv_heads, group, axis=2), own_kv_heads(values, kv_heads, group, axis=2)
    shared = keys.shape[2] == 1  # by all query heads of the device
    kernel: Any = _kernel(length, num_heads, window, shared, interpret)  # its type names results that it is not asked for

    def attend(queries: jax.Array, keys: jax.Array, values: jax.Array, ids: jax.Array) -> jax.Array:
        return kernel(queries, keys, values, segment_ids=kernels.SegmentIds(ids, ids))

    queries, keys, values = (array.swapaxes(1, 2) for array in (queries, keys, values))
    if shared:
        keys, values = keys[:, 0], values[:, 0]
    return jax.vmap(attend)(queries, keys, values, segment_ids).swapaxes(1, 2)


def own_kv_heads(array: jax.Array, kv_heads: jax.Array, group: int, axis: int) -> jax.Array:
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


def _kernel(length: int, num_heads: int, window: int | None, shared: bool, interpret: bool) -> kernels.SplashAttentionKernel:
    block = next(block for block in BLOCKS if length % block == 0)
    shape = (length, length)
    # LocalMask counts how far back a place sees beyond itself
    mask = masks.CausalMask(shape) if window is None else masks.LocalMask(shape, (window - 1, 0), 0)
    sizes = kernels.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=min(block, COMPUTED),
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=min(block, COMPUTED),
        use_fused_bwd_kernel=True,
    )
    make = kernels.make_splash_mqa if shared else kernels.make_splash_mha
    return make(
        masks.MultiHeadMask([mask] * num_heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )
