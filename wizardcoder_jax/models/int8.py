"""Int8 kernels, for inference and under adapters: half the bytes of bfloat16, which is what a decode step waits for."""

import jax.numpy as jnp
from flax import nnx

from wizardcoder_jax.models.layers import Projection
from wizardcoder_jax.models.transformer import Transformer

_STEPS = 127  # of an int8 number on either side of zero


def quantize_int8(model: Transformer) -> Transformer:
    """The same model with the kernels of its blocks in int8, symmetric, with one scale an output channel.

    A kernel's number is its int8 times the scale of its output channel, which is the channel's largest magnitude over
    `_STEPS`: no number is off by more than half a scale, and zero stays zero. Embeddings, output head, norms and biases stay
    as they are, adapters too. Works on stacked and unstacked blocks and inside jit. The kernels of the result cannot be
    trained, but adapters over them can; to export them, `model/lora.merged` makes them float again.
    """
    model = nnx.clone(model)
    for _, module in nnx.iter_modules(model.blocks):
        if isinstance(module, Projection):
            _quantise(module, model)
    return model


def _quantise(projection: Projection, model: Transformer) -> None:
    assert isinstance(projection.kernel, nnx.Param)
    kernel, axes = projection.kernel[...].astype(jnp.float32), projection.kernel.axes
    lead = kernel.ndim - len(axes)  # 1 where layers are stacked
    inputs = tuple(range(lead, lead + projection.num_in))
    scale = jnp.max(jnp.abs(kernel), axis=inputs) / _STEPS
    divisor = jnp.expand_dims(jnp.where(scale == 0, 1, scale), inputs)
    steps = jnp.round(kernel / divisor).astype(jnp.int8)
    axes_out = axes[projection.num_in :]
    projection.kernel = nnx.Param(model.rules.constrain(steps, *axes), axes=axes)
    projection.scale = nnx.data(nnx.Param(model.rules.constrain(scale, *axes_out), axes=axes_out))
