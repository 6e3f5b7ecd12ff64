"""Quantized optimizer moments, stored as bfloat16 or as 8-bit codes with a float32 scale per block.

This works for any optax transformation: moments are converted to float32 before the update and quantized again after it.

Rounding is stochastic, so that stored moments are correct in expectation. With rounding to nearest, a second moment with decay
0.999 could not decay: a step changes it by at most 0.1 %, but half the distance between bfloat16 numbers is about 0.2 %.

The 8-bit format follows Dettmers et al., arXiv 2110.02861 (bitsandbytes): blocks with a scale, finer steps for small numbers,
and arrays of fewer than 4096 numbers stay unquantized. Instead of their table of values, a power is used: if s is the largest
magnitude in a block, code c stands for sign(c) s (c/127)^2, or for s (c/255)^4 if the moment is never negative. The smallest
magnitudes above 0 are thus 6e-5 s and 2e-10 s.
"""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from wizardcoder_jax.core.sharding import Axes
from wizardcoder_jax.training.optimizers.layerwise_update import update_layerwise

MAX_BLOCK = 128  # maximum number of elements per block
MIN_BLOCK = 16  # minimum number of elements per block when blocks are shortened to fit into a device's shard
MAX_SPLIT = 64  # number of devices that a dim can be sharded over without splitting a block
MIN_SIZE = 4096  # number of elements; moments with fewer stay float32
SECOND_MOMENT = "nu"  # optax's name for second moments, which are never negative

MomentDtype = Literal["float32", "bfloat16", "int8"]


class QuantizedMoment(NamedTuple):
    """A moment in 8 bits. The names of the fields are part of array names in checkpoints."""

    codes: nnx.Param  # int8, or uint8 for second moments; same shape and axes as the moment
    scales: nnx.Param  # float32; same shape and axes, but the dim of size D that is split into blocks has size D / block


class QuantizedMomentsState(NamedTuple):
    """The state of an optimizer with quantized moments. The names of the fields are part of array names in checkpoints."""

    count: jax.Array  # int32, number of updates so far; also the seed of the stochastic rounding
    inner: Any


def quantize_moments(
    inner: optax.GradientTransformation, dtype: MomentDtype, layerwise: bool = False
) -> optax.GradientTransformation:
    """Return an optimizer that makes the updates of `inner` but stores its moments in `dtype`.

    Args:
        inner: the optimizer; the nnx.Params in its state are its moments.
        dtype: the dtype of the stored moments.
        layerwise: whether to update layer by layer (layerwise_update.py).
    """

    def quantize(state: Any, key: jax.Array) -> Any:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_param)
        keys = jax.random.split(key, len(leaves))
        stored = [
            _quantize(leaf, SECOND_MOMENT in _names(path), dtype, key) for (path, leaf), key in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(treedef, stored)

    def dequantize(state: Any) -> Any:
        return jax.tree.map(_dequantize, state, is_leaf=lambda node: isinstance(node, QuantizedMoment) or _is_param(node))

    def init(params: Any) -> QuantizedMomentsState:
        return QuantizedMomentsState(jnp.int32(0), quantize(inner.init(params), jax.random.key(0)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, QuantizedMomentsState]:
        def update_quantized(key: jax.Array, updates: Any, stored: Any, params: Any) -> tuple[Any, Any]:
            updates, new = inner.update(updates, dequantize(stored), params)
            return updates, quantize(new, key)

        count = state.count + 1
        key = jax.random.fold_in(jax.random.key(0), count)
        apply = functools.partial(update_layerwise, update_quantized) if layerwise else update_quantized
        updates, stored = apply(key, updates, state.inner, params)
        return updates, QuantizedMomentsState(count, stored)

    return optax.GradientTransformation(init, update)


def _is_param(node: Any) -> bool:
    return isinstance(node, nnx.Param)


def _names(path: tuple[Any, ...]) -> list[str]:
    return [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]


def _quantize(leaf: Any, is_second: bool, dtype: MomentDtype, key: jax.Array) -> Any:
    is_moment = _is_param(leaf) and jax.tree.leaves(leaf)  # False for counts and for masked parameters
    if dtype == "float32" or not is_moment:
        return leaf
    value, axes = leaf[...], leaf.axes
    if dtype == "bfloat16":
        return nnx.Param(round_to_bfloat16(value, key), axes=axes)
    dim, block = choose_block(value.shape, axes)
    if value.size < MIN_SIZE or block == 1:  # one scale per element would save no memory
        return leaf
    codes, scales = quantize_blocks(value, dim, block, is_second, key)
    return QuantizedMoment(nnx.Param(codes, axes=axes), nnx.Param(scales, axes=axes))


def _dequantize(node: Any) -> Any:
    if isinstance(node, QuantizedMoment):
        return nnx.Param(dequantize_blocks(node.codes[...], node.scales[...]), axes=node.codes.axes)
    if _is_param(node) and jax.tree.leaves(node):
        return nnx.Param(node[...].astype(jnp.float32), axes=node.axes)
    return node


def choose_block(shape: tuple[int, ...], axes: Axes) -> tuple[int, int]:
    """Return the dim of a moment to split into blocks, counted from the end (-1 or -2), and the number of elements per block.

    The choice depends only on the shape and the logical axes, so that a checkpoint can be restored on any mesh. A dim that is
    never sharded is preferred, because a block must not extend over several shards. Otherwise the dim with the larger blocks
    is chosen: on TPU, an array whose last dim is shorter than 128 takes as much memory as if it were 128.
    """
    candidates = [(_block_size(shape[dim], axes[dim]), dim) for dim in (-1, -2) if -dim <= len(axes)]
    unsharded = [(block, dim) for block, dim in candidates if axes[dim] is None and block > MIN_BLOCK]
    block, dim = max(unsharded or candidates)
    return dim, block


def _block_size(size: int, axis: str | None) -> int:
    split = 1 if axis is None else MAX_SPLIT
    while split > 1 and size // math.gcd(size, split) < MIN_BLOCK:
        split //= 2
    shard = size // math.gcd(size, split)
    return max(block for block in range(1, min(shard, MAX_BLOCK) + 1) if shard % block == 0)


def quantize_blocks(x: jax.Array, dim: int, block: int, is_second: bool, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Quantize a float32 moment to 8-bit codes of the same shape, and scales; each element is rounded up or down at random.

    Args:
        x: the moment.
        dim: the dim to split into blocks, counted from the end (negative).
        block: number of elements per block; must divide the size of `dim`.
        is_second: whether it is a second moment, which is never negative.
        key: the random key of the stochastic rounding.
    """
    levels, power = (255, 4) if is_second else (127, 2)
    axis = x.ndim + dim
    blocks = x.reshape(*x.shape[:axis], -1, block, *x.shape[axis + 1 :])
    scales = jnp.abs(blocks).max(axis + 1, keepdims=True)
    magnitude = jnp.abs(blocks) / jnp.where(scales == 0, 1, scales)
    low = jnp.floor(levels * magnitude ** (1 / power))
    below, above = (low / levels) ** power, ((low + 1) / levels) ** power
    up = jax.random.uniform(key, blocks.shape) < (magnitude - below) / (above - below)
    codes = jnp.clip(low + up, 0, levels)
    # A second moment above 0 must not be rounded to 0, because updates are divided by its square root.
    codes = jnp.maximum(codes, magnitude > 0).astype(jnp.uint8) if is_second else (codes * jnp.sign(blocks)).astype(jnp.int8)
    return codes.reshape(x.shape), jnp.squeeze(scales, axis + 1)


def dequantize_blocks(codes: jax.Array, scales: jax.Array) -> jax.Array:
    """Return the float32 values of a quantized moment; the dim whose size differs in `scales` is the one split into blocks."""
    axis = next(i for i, (size, number) in enumerate(zip(codes.shape, scales.shape, strict=True)) if size != number)
    blocks = codes.reshape(*codes.shape[:axis], scales.shape[axis], -1, *codes.shape[axis + 1 :]).astype(jnp.float32)
    values = (blocks / 255) ** 4 if codes.dtype == jnp.uint8 else jnp.sign(blocks) * (blocks / 127) ** 2
    return (values * jnp.expand_dims(scales, axis + 1)).reshape(codes.shape)


def round_to_bfloat16(x: jax.Array, key: jax.Array) -> jax.Array:
    """Round float32 stochastically to one of the two nearest bfloat16 values."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint32) >> 16
    rounded = jnp.where(jnp.isfinite(x), bits + noise, bits) & jnp.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(rounded, jnp.float32).astype(jnp.bfloat16)
