"""Attention over packed rows with cuDNN's fused kernel for NVIDIA GPUs; it needs a [T, T] mask but stores no scores."""

import jax
import jax.numpy as jnp

from wizardcoder_jax.core.sharding import target_device_kind

MAX_HEAD_DIM = 128  # before Hopper (jax/_src/cudnn/fused_attention_stablehlo.py, check_is_flash_attention)


def is_gpu_target() -> bool:
    """Return whether JAX is tracing for an NVIDIA GPU."""
    return target_device_kind().startswith("NVIDIA")


def unsupported_by_cudnn(*, length: int, head_dim: int, dropout: float, dtype: jnp.dtype) -> list[str]:
    """Return what the kernel does not support; arguments as for `attention_dispatch.select_backend`."""
    unsupported = []
    if length % 2:
        unsupported.append(f"rows of {length} tokens, which is odd")
    if head_dim % 8 or head_dim > MAX_HEAD_DIM:
        unsupported.append(f"head_dim {head_dim}, which is not a multiple of 8 up to {MAX_HEAD_DIM}")
    if dropout:
        unsupported.append(f"dropout {dropout} of attention probabilities with one seed for each row")
    if is_gpu_target() and dtype.itemsize != 2:
        unsupported.append(f"compute_dtype {dtype}")
    return unsupported


def cudnn_attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segment_ids: jax.Array, window: int | None
) -> jax.Array:
    """Compute `attend_packed` on one device, with the kv heads of its query heads; off GPU with plain matrix products."""
    return jax.nn.dot_product_attention(
        queries,
        keys,
        values,
        mask=segment_ids[:, None, :, None] == segment_ids[:, None, None, :],
        scale=1.0,  # the queries are already scaled
        is_causal=True,
        local_window_size=None if window is None else (window - 1, 0),
        implementation="cudnn" if is_gpu_target() else "xla",
    )
