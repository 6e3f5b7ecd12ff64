"""Attention over packed rows with JAX's splash kernel for TPU: blockwise, without [T, T] arrays of scores or masks."""

from typing import Any

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from wizardcoder_jax.core.sharding import target_device_kind
from wizardcoder_jax.models.remat import ATTENDED

LANES = 128  # of a TPU's vector unit: the kernel's blocks are multiples of it (splash_attention_kernel.py, NUM_LANES)
# Block sizes, of which the largest that divides the row is used, and how many keys of a block are multiplied at a time.
# 2048 tokens the compiler's schedule for v5e has 15 % fewer instructions forward and 28 % fewer backward than with blocks of
# 512 and a separate pass for the gradient of queries: more scores are masked, but less memory is read, and scores are computed
# one time less.
BLOCK_SIZES, COMPUTE_BLOCK_SIZE = (1024, 512, 256, 128), 512


def is_tpu_target() -> bool:
    """Return whether JAX is tracing for a TPU."""
    return target_device_kind().startswith("TPU")


def unsupported_by_splash(*, length: int, head_dim: int, dropout: float) -> list[str]:
    """Return what the kernel does not support; arguments as for `attention_dispatch.select_backend`."""
    unsupported = []
    if length % LANES:
        unsupported.append(f"rows of {length} tokens, which is not a multiple of {LANES}")
    if head_dim % (LANES // 2):
        unsupported.append(f"head_dim {head_dim}, which is not a multiple of {LANES // 2}")
    if dropout:
        unsupported.append(f"dropout {dropout} of attention probabilities")
    return unsupported


def splash_attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segment_ids: jax.Array, window: int | None
) -> jax.Array:
    """Compute `attend_packed` on one device, with the kv heads of its query heads; off TPU in Pallas' interpreter."""
    _, length, num_heads, _ = queries.shape
    is_mqa = keys.shape[2] == 1  # all query heads of the device share one kv head
    # Any, because its declared type includes results that are only returned on request.
    kernel: Any = _kernel(length, num_heads, window, is_mqa, interpret=not is_tpu_target())

    def attend(queries: jax.Array, keys: jax.Array, values: jax.Array, ids: jax.Array) -> jax.Array:
        return kernel(queries, keys, values, segment_ids=kernels.SegmentIds(ids, ids))

    queries, keys, values = (array.swapaxes(1, 2) for array in (queries, keys, values))
    if is_mqa:
        keys, values = keys[:, 0], values[:, 0]
    return jax.vmap(attend)(queries, keys, values, segment_ids).swapaxes(1, 2)


def _kernel(length: int, num_heads: int, window: int | None, is_mqa: bool, interpret: bool) -> kernels.SplashAttentionKernel:
    block = next(block for block in BLOCK_SIZES if length % block == 0)
    shape = (length, length)
    # LocalMask counts the earlier positions without the token itself.
    mask = masks.CausalMask(shape) if window is None else masks.LocalMask(shape, (window - 1, 0), 0)
    sizes = kernels.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=min(block, COMPUTE_BLOCK_SIZE),
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=min(block, COMPUTE_BLOCK_SIZE),
        use_fused_bwd_kernel=True,
    )
    make = kernels.make_splash_mqa if is_mqa else kernels.make_splash_mha
    return make(
        masks.MultiHeadMask([mask] * num_heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )
