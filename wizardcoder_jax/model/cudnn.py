"""Attention over packed rows by cuDNN's fused kernel for NVIDIA GPUs: of [T, T] there is a mask of segments, no scores."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from wizardcoder_jax.model.splash import Segments, own_kv_heads
from wizardcoder_jax.sharding import Rules, device_kind

MOST_HEAD_DIM = 128  # before Hopper (jax/_src/cudnn/fused_attention_stablehlo.py, check_is_flash_attention)


def on_gpu() -> bool:
    """Whether what is traced now is for an NVIDIA GPU."""
    return device_kind().startswith("NVIDIA")


def cudnn_misfits(*, length: int, head_dim: int, dropout: float, dtype: jnp.dtype) -> list[str]:
    """Why the kernel does not fit; nothing where it does. Arguments as of `kernels.chosen`."""
    found = []
    if length % 2:
        found.append(f"rows of {length} tokens, not of an even number")
    if head_dim % 8 or head_dim > MOST_HEAD_DIM:
        found.append(f"head_dim {head_dim}, not a multiple of 8 up to {MOST_HEAD_DIM}")
    if dropout:
        found.append(f"dropout {dropout} of attention probabilities, which a row must draw by itself")
    if on_gpu() and dtype.itemsize != 2:
        found.append(f"compute_dtype {dtype}, which the kernel lacks")
    return found


def cudnn_attend(queries: jax.Array, keys: jax.Array, values: jax.Array, segments: Segments, rules: Rules) -> jax.Array:
    """Softmax attention, scores in float32; arguments and result as of `splash_attend`. Off GPU, JAX's own products."""
    group = queries.shape[2] // keys.shape[2]
    heads, kv_heads = ("batch", None, "heads", None), ("batch", None, "kv_heads", None)
    part = functools.partial(_part, group=group, window=segments.window, implementation="cudnn" if on_gpu() else "xla")
    axes = (heads, kv_heads, kv_heads, ("batch", None), ("heads",))
    run = rules.per_device(part, axes, (queries.shape, heads), check_vma=False)
    return run(queries, keys, values, segments.ids, jnp.arange(queries.shape[2]) // group)


def _part(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    segment_ids: jax.Array,
    kv_heads: jax.Array,
    *,
    group: int,
    window: int | None,
    implementation: Literal["cudnn", "xla"],
) -> jax.Array:
    """`cudnn_attend` on one device; `kv_heads` [N]: which each of its query heads has; `group`: the whole's G."""
    keys, values = (own_kv_heads(array, kv_heads, group, axis=2) for array in (keys, values))
    return jax.nn.dot_product_attention(
        queries,
        keys,
        values,
        mask=segment_ids[:, None, :, None] == segment_ids[:, None, None, :],
        scale=1.0,  # the queries have it already
        is_causal=True,
        local_window_size=None if window is None else (window - 1, 0),
        implementation=implementation,
    )
