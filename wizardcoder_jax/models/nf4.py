"""NF4, the four-bit numbers of QLoRA (Dettmers et al., arXiv 2305.14314), for kernels that are frozen.

A number is one of 16 levels times the largest magnitude of its block of 64; two share a byte. The magnitudes are 8-bit in
turn ("double quantization", section 3): what they are above or below their mean, in steps of a scale that 256 of them share.
That is 4 + 8/64 + 32/(64 * 256) = 4.127 bits a number. The paper has 8-bit floats for the magnitudes; here they are evenly
spaced int8, which is finer where they are all of a size, and costs the same.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import Axes, ShardingRules

# Quantiles of the normal distribution, seven below zero and eight above, scaled to [-1, 1]: arXiv 2305.14314, appendix E.
LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
BLOCK = 64  # numbers that share a magnitude
GROUP = 256  # magnitudes that share a scale
_STEPS = 127  # of a magnitude on either side of the mean


class Nf4Kernel(nnx.Module):
    """A kernel (of one layer, or stacked with a leading dim) in NF4.

    Blocks lie along the last dim that is not "embed", groups of magnitudes along "embed": splits of "embed" cut no block,
    and the magnitudes are whole along it where they are computed with. A block is smaller where 64 does not divide its dim,
    and a group where 256 does not.

    Args:
        kernel: [*shape] or [L, *shape], of any float dtype.
        axes: logical axes of `shape`, "embed" among them.
        rules: how tensors are split over the mesh.

    Raises:
        InputError: the dim along which blocks lie is odd, so that its numbers make no pairs.
    """

    def __init__(self, kernel: jax.Array, axes: Axes, rules: ShardingRules) -> None:
        self.axes, self.rules = axes, rules
        self.blocked = max(i for i, axis in enumerate(axes) if axis != "embed")
        self.grouped = axes.index("embed")
        lead = kernel.ndim - len(axes)
        if kernel.shape[lead + self.blocked] % 2:
            raise InputError(f"nf4 packs numbers in pairs, and a kernel has {kernel.shape[lead:]}; choose other base_weights")
        codes, scale, step, mean = jax.lax.map(self._packed, kernel) if lead else self._packed(kernel)
        held = tuple(None if axis == "embed" else axis for axis in axes)
        self.codes = nnx.Param(rules.constrain(codes, *axes), axes=axes)  # [*shape] with half the blocked dim, uint8
        self.scale = nnx.Param(rules.constrain(scale, *axes), axes=axes)  # [*shape] with its blocks' number, int8
        self.step = nnx.Param(rules.constrain(step, *held), axes=held)  # as scale, with its groups' number, float32
        self.mean = nnx.Param(rules.constrain(mean), axes=())  # [], of the magnitudes, float32

    def dense(self, dtype: jnp.dtype) -> jax.Array:
        """The kernel [*shape] of one layer, as far together as it is computed with; the bytes are what is gathered."""
        codes = self.rules.all_gather(self.codes[...], *self.axes)
        scale = self.rules.all_gather(self.scale[...], *self.axes)
        steps = _cut(scale, self.grouped, self.step.shape[self.grouped])
        magnitudes = (steps * jnp.expand_dims(self.step[...], self.grouped + 1)).reshape(scale.shape) + self.mean[...]
        pairs = _cut(codes, self.blocked, scale.shape[self.blocked])
        blocks = _level(jnp.concatenate([pairs & 15, pairs >> 4], axis=self.blocked + 1))
        kernel = (blocks * jnp.expand_dims(magnitudes, self.blocked + 1)).astype(dtype)
        shape = tuple(dim * (2 if i == self.blocked else 1) for i, dim in enumerate(codes.shape))
        return self.rules.all_gather(kernel.reshape(shape), *self.axes)

    def _packed(self, kernel: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Codes, scale, step and mean of one layer's kernel."""
        along, size = self.blocked + 1, math.gcd(BLOCK, kernel.shape[self.blocked])
        blocks = _cut(kernel.astype(jnp.float32), self.blocked, kernel.shape[self.blocked] // size)
        magnitudes = jnp.max(jnp.abs(blocks), axis=along)
        parts = blocks / jnp.expand_dims(_nonzero(magnitudes), along)
        middles = [(low + high) / 2 for low, high in itertools.pairwise(LEVELS)]
        codes = sum(((parts > middle).astype(jnp.uint8) for middle in middles), jnp.zeros(parts.shape, jnp.uint8))
        low, high = jnp.split(codes, 2, axis=along)
        packed = (low | high << 4).reshape(tuple(dim // (2 if i == self.blocked else 1) for i, dim in enumerate(kernel.shape)))
        mean = magnitudes.mean()
        num_groups = magnitudes.shape[self.grouped] // math.gcd(GROUP, magnitudes.shape[self.grouped])
        groups = _cut(magnitudes - mean, self.grouped, num_groups)
        step = jnp.max(jnp.abs(groups), axis=self.grouped + 1) / _STEPS
        scale = jnp.round(groups / jnp.expand_dims(_nonzero(step), self.grouped + 1)).astype(jnp.int8)
        return packed, scale.reshape(magnitudes.shape), step, mean


def _cut(array: jax.Array, dim: int, num: int) -> jax.Array:
    """`array` with one dim cut into `num` equal pieces: two dims in place of it."""
    return array.reshape(*array.shape[:dim], num, -1, *array.shape[dim + 1 :])


def _nonzero(divisor: jax.Array) -> jax.Array:
    return jnp.where(divisor == 0, 1, divisor)


def _level(codes: jax.Array) -> jax.Array:
    """The level of each code, by a tree of choices bit by bit: accelerators look up slowly, and choose fast."""
    left: list[jax.Array] = [jnp.float32(level) for level in LEVELS]
    for bit in range(4):
        is_set = (codes >> bit) & 1 == 1
        left = [jnp.where(is_set, odd, even) for even, odd in zip(left[::2], left[1::2], strict=True)]
    return left[0]
