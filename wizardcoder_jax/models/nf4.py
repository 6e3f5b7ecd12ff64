"""NF4, the 4-bit data type of QLoRA (Dettmers et al., arXiv 2305.14314), for frozen kernels.

A weight is one of 16 levels times the largest magnitude in its block of 64 weights. A code is the index of a level; two codes
are packed into a byte. The magnitudes are quantized to 8 bits as well ("double quantization", section 3): the difference
between a magnitude and the mean magnitude is stored as a multiple of a step size that 256 magnitudes share. This takes
4 + 8/64 + 32/(64 * 256) = 4.127 bits per weight. The paper stores the magnitudes as 8-bit floats. We store them as int8, which
takes the same memory and is more precise for magnitudes of similar size.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import Axes, ShardingRules

# Quantiles of the normal distribution (seven negative, zero, eight positive), scaled to [-1, 1]; arXiv 2305.14314, appendix E.
LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
BLOCK = 64  # number of weights that share a magnitude
GROUP = 256  # number of magnitudes that share a step size
_MAX_INT8 = 127


class Nf4Kernel(nnx.Module):
    """A kernel in NF4, of one layer or of stacked layers.

    Blocks run along the last dim that is not "embed", and groups of magnitudes along "embed". Splitting "embed" over devices
    therefore does not cut any block, and the magnitudes are gathered along "embed" before the computation. If 64 does not
    divide the dim of the blocks, blocks are smaller; if 256 does not divide "embed", groups are smaller.

    Args:
        kernel: [*shape] or, with stacked layers, [L, *shape], of any float dtype.
        axes: logical axes of `shape`, including "embed".
        rules: how tensors are split over the mesh.

    Raises:
        InputError: the dim of the blocks has an odd size, so that codes cannot be packed in pairs.
    """

    def __init__(self, kernel: jax.Array, axes: Axes, rules: ShardingRules) -> None:
        self.axes, self.rules = axes, rules
        self.block_dim = max(i for i, axis in enumerate(axes) if axis != "embed")
        self.group_dim = axes.index("embed")
        lead = kernel.ndim - len(axes)
        if kernel.shape[lead + self.block_dim] % 2:
            shape = kernel.shape[lead:]
            raise InputError(
                f"nf4 packs weights in pairs, so it cannot store a kernel of shape {shape}; choose other base_weights"
            )
        codes, scale, step, mean = jax.lax.map(self._quantize, kernel) if lead else self._quantize(kernel)
        step_axes = tuple(None if axis == "embed" else axis for axis in axes)
        # Shapes equal `shape`, except that codes (uint8) have half the size along the dim of the blocks, scale (int8) has one
        # entry per block, and step (float32) has one entry per block and group. The mean of all magnitudes is a scalar.
        self.codes = nnx.Param(rules.constrain(codes, *axes), axes=axes)
        self.scale = nnx.Param(rules.constrain(scale, *axes), axes=axes)
        self.step = nnx.Param(rules.constrain(step, *step_axes), axes=step_axes)
        self.mean = nnx.Param(rules.constrain(mean), axes=())

    def dequantize(self, dtype: jnp.dtype) -> jax.Array:
        """Gather the kernel of one layer for computation, in quantized form, and return it dequantized: [*shape]."""
        codes = self.rules.all_gather(self.codes[...], *self.axes)
        scale = self.rules.all_gather(self.scale[...], *self.axes)
        steps = _split_dim(scale, self.group_dim, self.step.shape[self.group_dim])
        magnitudes = (steps * jnp.expand_dims(self.step[...], self.group_dim + 1)).reshape(scale.shape) + self.mean[...]
        pairs = _split_dim(codes, self.block_dim, scale.shape[self.block_dim])
        blocks = _level(jnp.concatenate([pairs & 15, pairs >> 4], axis=self.block_dim + 1))
        kernel = (blocks * jnp.expand_dims(magnitudes, self.block_dim + 1)).astype(dtype)
        shape = tuple(dim * (2 if i == self.block_dim else 1) for i, dim in enumerate(codes.shape))
        return self.rules.all_gather(kernel.reshape(shape), *self.axes)

    def _quantize(self, kernel: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Return codes, scale, step and mean of one layer's kernel."""
        along, size = self.block_dim + 1, math.gcd(BLOCK, kernel.shape[self.block_dim])
        blocks = _split_dim(kernel.astype(jnp.float32), self.block_dim, kernel.shape[self.block_dim] // size)
        magnitudes = jnp.max(jnp.abs(blocks), axis=along)
        parts = blocks / jnp.expand_dims(_nonzero(magnitudes), along)
        middles = [(low + high) / 2 for low, high in itertools.pairwise(LEVELS)]
        codes = sum(((parts > middle).astype(jnp.uint8) for middle in middles), jnp.zeros(parts.shape, jnp.uint8))
        low, high = jnp.split(codes, 2, axis=along)
        packed = (low | high << 4).reshape(
            tuple(dim // (2 if i == self.block_dim else 1) for i, dim in enumerate(kernel.shape))
        )
        mean = magnitudes.mean()
        num_groups = magnitudes.shape[self.group_dim] // math.gcd(GROUP, magnitudes.shape[self.group_dim])
        groups = _split_dim(magnitudes - mean, self.group_dim, num_groups)
        step = jnp.max(jnp.abs(groups), axis=self.group_dim + 1) / _MAX_INT8
        scale = jnp.round(groups / jnp.expand_dims(_nonzero(step), self.group_dim + 1)).astype(jnp.int8)
        return packed, scale.reshape(magnitudes.shape), step, mean


def _split_dim(array: jax.Array, dim: int, num: int) -> jax.Array:
    """Split one dim of `array` into two dims, of which the first has size `num`."""
    return array.reshape(*array.shape[:dim], num, -1, *array.shape[dim + 1 :])


def _nonzero(divisor: jax.Array) -> jax.Array:
    return jnp.where(divisor == 0, 1, divisor)


def _level(codes: jax.Array) -> jax.Array:
    """Return the level of each code. Uses a tree of selects, bit by bit, because table lookups are slow on accelerators."""
    levels: list[jax.Array] = [jnp.float32(level) for level in LEVELS]
    for bit in range(4):
        is_set = (codes >> bit) & 1 == 1
        levels = [jnp.where(is_set, odd, even) for even, odd in zip(levels[::2], levels[1::2], strict=True)]
    return levels[0]
