"""Attention over packed rows by JAX's splash kernel for TPU: blockwise, so no scores and no masks of [T, T] are held."""

from typing import Any

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from wizardcoder_jax.core.sharding import target_device_kind
from wizardcoder_jax.models.remat import ATTENDED

LANES = 128  # of a TPU's vector unit: the kernel's blocks are multiples of it (splash_attention_kernel.py, NUM_LANES)
# Places of a block, the largest that divides the row is taken, and how many keys of it are multiplied at a time. For rows of
# 2048 the compiler schedules for v5e 15 % fewer instructions forward and 28 % fewer backward than with blocks of 512 and a pass
# of its own for the gradient of queries: more is masked, but less is read, and scores are computed once less.
BLOCKS, COMPUTED = (1024, 512, 256, 128), 512


def is_tpu_target() -> bool:
    """Whether what is traced now is for a TPU."""
    return target_device_kind().startswith("TPU")


def unsupported_by_splash(*, length: int, head_dim: int, dropout: float) -> list[str]:
    """Why the kernel does not fit; nothing where it does. Arguments as of `kernels.chosen`."""
    found = []
    if length % LANES:
        found.append(f"rows of {length} tokens, not of a multiple of {LANES}")
    if head_dim % (LANES // 2):
        found.append(f"head_dim {head_dim}, not a multiple of {LANES // 2}")
    if dropout:
        found.append(f"dropout {dropout} of attention probabilities, which the kernel lacks")
    return found


def splash_attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segment_ids: jax.Array, window: int | None
) -> jax.Array:
    """`kernels.attend_packed` on one device, with the kv heads of its query heads; off TPU interpreted."""
    _, length, num_heads, _ = queries.shape
    shared = keys.shape[2] == 1  # by all query heads of the device
    # its type names results that it is not asked for
    kernel: Any = _kernel(length, num_heads, window, shared, interpret=not is_tpu_target())

    def attend(queries: jax.Array, keys: jax.Array, values: jax.Array, ids: jax.Array) -> jax.Array:
        return kernel(queries, keys, values, segment_ids=kernels.SegmentIds(ids, ids))

    queries, keys, values = (array.swapaxes(1, 2) for array in (queries, keys, values))
    if shared:
        keys, values = keys[:, 0], values[:, 0]
    return jax.vmap(attend)(queries, keys, values, segment_ids).swapaxes(1, 2)


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
