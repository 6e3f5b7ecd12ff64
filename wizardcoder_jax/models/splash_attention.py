"""Attention over packed sequences with JAX's splash kernel for TPU, which stores no [T, T] arrays of scores or masks."""

from typing import Any

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from wizardcoder_jax.core.sharding import target_device_kind
from wizardcoder_jax.models.remat import ATTENDED

# Number of lanes of a TPU's vector unit. The kernel's block sizes are multiples of it (splash_attention_kernel.py, NUM_LANES).
LANES = 128
# The kernel uses the largest of BLOCK_SIZES that divides the sequence length, and multiplies COMPUTE_BLOCK_SIZE keys of a block
# at a time. With 2,048 tokens on v5e, the compiled program has 15 % fewer instructions in the forward pass and 28 % fewer in
# the backward pass than with blocks of 512 and a separate pass for the gradient of queries: more scores are masked, but less
# memory is read, and the backward pass computes the scores only once.
BLOCK_SIZES, COMPUTE_BLOCK_SIZE = (1024, 512, 256, 128), 512


def is_tpu_target() -> bool:
    """Return whether JAX is tracing for a TPU."""
    return target_device_kind().startswith("TPU")


def unsupported_by_splash(*, length: int, head_dim: int, dropout: float) -> list[str]:
    """Describe each setting that the kernel does not support. Arguments: see `attention_dispatch.select_backend`."""
    unsupported = []
    if length % LANES:
        unsupported.append(f"a sequence length of {length} tokens (it must be a multiple of {LANES})")
    if head_dim % (LANES // 2):
        unsupported.append(f"head_dim {head_dim} (it must be a multiple of {LANES // 2})")
    if dropout:
        unsupported.append(f"dropout {dropout} of attention probabilities")
    return unsupported


def splash_attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segment_ids: jax.Array, window: int | None
) -> jax.Array:
    """Compute `attend_packed` for the heads of one device. Without a TPU, run the kernel in Pallas' interpreter."""
    _, length, num_heads, _ = queries.shape
    is_mqa = keys.shape[2] == 1  # all query heads of the device share one kv head
    # Typed as Any, because the declared return type includes results that are only returned on request.
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
    # The window of LocalMask does not count the token itself.
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
