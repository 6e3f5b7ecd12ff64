"""Int8 quantization of kernels, for inference and under LoRA adapters.

Int8 kernels have half the bytes of bfloat16, and decoding is limited by the time to read the weights.
"""

import jax.numpy as jnp
from flax import nnx

from wizardcoder_jax.models.layers import Projection
from wizardcoder_jax.models.transformer import Transformer

_MAX_INT8 = 127


def quantize_int8(model: Transformer) -> Transformer:
    """Quantize the kernels of all blocks to int8, symmetrically, with one scale per output channel.

    A weight is its int8 value times the scale of its output channel. The scale is the largest magnitude in the channel divided
    by 127, so the rounding error is at most half a scale, and zero stays zero. Embeddings, output head, norms, biases and
    adapters are not changed. Works on stacked and unstacked blocks, also inside jit. Quantized kernels cannot be trained, but
    adapters over them can; `models.lora.merge_adapters` converts the kernels back to floating point for export.
    """
    model = nnx.clone(model)
    for _, module in nnx.iter_modules(model.blocks):
        if isinstance(module, Projection):
            _quantize(module, model)
    return model


def _quantize(projection: Projection, model: Transformer) -> None:
    assert isinstance(projection.kernel, nnx.Param)
    kernel, axes = projection.kernel[...].astype(jnp.float32), projection.kernel.axes
    num_leading = kernel.ndim - len(axes)  # 1 if layers are stacked, otherwise 0
    input_dims = tuple(range(num_leading, num_leading + projection.num_in))
    scale = jnp.max(jnp.abs(kernel), axis=input_dims) / _MAX_INT8
    divisor = jnp.expand_dims(jnp.where(scale == 0, 1, scale), input_dims)
    quantized = jnp.round(kernel / divisor).astype(jnp.int8)
    axes_out = axes[projection.num_in :]
    projection.kernel = nnx.Param(model.rules.constrain(quantized, *axes), axes=axes)
    projection.scale = nnx.data(nnx.Param(model.rules.constrain(scale, *axes_out), axes=axes_out))
