"""Attention over packed sequences with cuDNN's fused kernel for NVIDIA GPUs, which needs a [T, T] mask but stores no scores."""

import jax
import jax.numpy as jnp

from wizardcoder_jax.core.sharding import target_device_kind

MAX_HEAD_DIM = 128  # on GPUs before Hopper (jax/_src/cudnn/fused_attention_stablehlo.py, check_is_flash_attention)


def is_gpu_target() -> bool:
    """Return whether JAX is tracing for an NVIDIA GPU."""
    return target_device_kind().startswith("NVIDIA")


def unsupported_by_cudnn(*, length: int, head_dim: int, dropout: float, dtype: jnp.dtype) -> list[str]:
    """Describe each setting that the kernel does not support. Arguments: see `attention_dispatch.select_backend`."""
    unsupported = []
    if length % 2:
        unsupported.append(f"an odd sequence length ({length} tokens)")
    if head_dim % 8 or head_dim > MAX_HEAD_DIM:
        unsupported.append(f"head_dim {head_dim} (it must be a multiple of 8, at most {MAX_HEAD_DIM})")
    if dropout:
        unsupported.append(f"dropout {dropout} of attention probabilities with one seed per sequence")
    if is_gpu_target() and dtype.itemsize != 2:
        unsupported.append(f"compute_dtype {dtype}")
    return unsupported


def cudnn_attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segment_ids: jax.Array, window: int | None
) -> jax.Array:
    """Compute `attend_packed` for the heads of one device. Without an NVIDIA GPU, use plain matrix products."""
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
