"""Attention over packed rows by cuDNN's fused kernel for NVIDIA GPUs: of [T, T] there is a mask of segments, no scores."""

import jax
import jax.numpy as jnp

from wizardcoder_jax.core.sharding import target_device_kind

MOST_HEAD_DIM = 128  # before Hopper (jax/_src/cudnn/fused_attention_stablehlo.py, check_is_flash_attention)


def is_gpu_target() -> bool:
    """Whether what is traced now is for an NVIDIA GPU."""
    return target_device_kind().startswith("NVIDIA")


def unsupported_by_cudnn(*, length: int, head_dim: int, dropout: float, dtype: jnp.dtype) -> list[str]:
    """Why the kernel does not fit; nothing where it does. Arguments as of `kernels.chosen`."""
    found = []
    if length % 2:
        found.append(f"rows of {length} tokens, not of an even number")
    if head_dim % 8 or head_dim > MOST_HEAD_DIM:
        found.append(f"head_dim {head_dim}, not a multiple of 8 up to {MOST_HEAD_DIM}")
    if dropout:
        found.append(f"dropout {dropout} of attention probabilities, which a row must draw by itself")
    if is_gpu_target() and dtype.itemsize != 2:
        found.append(f"compute_dtype {dtype}, which the kernel lacks")
    return found


def cudnn_attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segment_ids: jax.Array, window: int | None
) -> jax.Array:
    """`kernels.attend_packed` on one device, with the kv heads of its query heads; off GPU JAX's own products."""
    return jax.nn.dot_product_attention(
        queries,
        keys,
        values,
        mask=segment_ids[:, None, :, None] == segment_ids[:, None, None, :],
        scale=1.0,  # the queries have it already
        is_causal=True,
        local_window_size=None if window is None else (window - 1, 0),
        implementation="cudnn" if is_gpu_target() else "xla",
    )
