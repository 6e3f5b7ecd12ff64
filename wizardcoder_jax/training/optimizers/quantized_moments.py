"""Optimizer moments stored in fewer bits than they are computed in: bfloat16, or 8 bits per number with a scale per block.

This works for any optax transformation: moments are converted to float32 for the update and back after it.

Rounding is stochastic, so that stored moments are right in expectation. Rounding to nearest would freeze a second moment with
decay 0.999: a step changes it by a thousandth, but half the distance to the next bfloat16 is two thousandths.

8 bits, blocks, and finer steps for small numbers follow Dettmers et al., arXiv 2110.02861 (bitsandbytes, which also leaves
arrays of fewer than 4096 numbers unchanged). Their steps are a table; here they are a power: in a block of largest magnitude s,
code c stands for s (c/127)^2 with the sign of c, or, for moments that are never negative, for s (c/255)^4. Relative to s, the
smallest numbers distinct from 0 are 6e-5 and 2e-10.
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

MAX_BLOCK = 128  # largest number of elements that share a scale
MIN_BLOCK = 16  # blocks are not made smaller than this to fit a mesh
MAX_SPLIT = 64  # devices that a dim can be sharded over without cutting a block
MIN_SIZE = 4096  # smaller arrays stay float32
SECOND_MOMENT = "nu"  # optax's name of second moments, which are never negative

MomentDtype = Literal["float32", "bfloat16", "int8"]


class QuantizedMoment(NamedTuple):
    """A moment in 8 bits. The fields' names are those of arrays in checkpoints."""

    codes: nnx.Param  # int8, or uint8 if nothing is negative; shape and axes of the moment
    scales: nnx.Param  # float32; same shape and axes, except that the dim cut into blocks has size D / block


class QuantizedMomentsState(NamedTuple):
    """The state of a transformation with quantized moments. The fields' names are those of arrays in checkpoints."""

    count: jax.Array  # int32, updates so far; seeds the rounding
    inner: Any


def quantize_moments(
    inner: optax.GradientTransformation, dtype: MomentDtype, layerwise: bool = False
) -> optax.GradientTransformation:
    """Return `inner` with its moments, the nnx.Params of its state, stored in `dtype`.

    Args:
        inner: the transformation.
        dtype: of the stored moments.
        layerwise: update layer by layer (layerwise_update.py).
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
    is_moment = _is_param(leaf) and jax.tree.leaves(leaf)  # neither a count nor a parameter of another optimizer
    if dtype == "float32" or not is_moment:
        return leaf
    value, axes = leaf[...], leaf.axes
    if dtype == "bfloat16":
        return nnx.Param(round_to_bfloat16(value, key), axes=axes)
    dim, block = choose_block(value.shape, axes)
    if value.size < MIN_SIZE or block == 1:  # a scale per number would save nothing
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
    """Return the dim of a moment to cut into blocks, counted from the end (-1 or -2), and the elements of a block.

    The choice depends only on the shape and the logical axes, so that a state fits any mesh. A dim that no mesh shards is best;
    blocks of a dim that may be sharded must lie within each device's shard. Otherwise the dim with the larger blocks is chosen:
    on TPU an array with a short last dim takes as much memory as one with 128.
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
    """Return a float32 moment as codes of the same shape, and scales; each number becomes one of its two nearest codes.

    Args:
        x: the moment.
        dim: the dim to cut into blocks, counted from the end.
        block: elements of a block; divides the dim.
        is_second: whether the moment is never negative.
        key: of the stochastic rounding.
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
    # A second moment other than 0 must not become 0, because updates are divided by its root.
    codes = jnp.maximum(codes, magnitude > 0).astype(jnp.uint8) if is_second else (codes * jnp.sign(blocks)).astype(jnp.int8)
    return codes.reshape(x.shape), jnp.squeeze(scales, axis + 1)


def dequantize_blocks(codes: jax.Array, scales: jax.Array) -> jax.Array:
    """Return the float32 values of codes and scales; the dim cut into blocks is the one whose sizes differ."""
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
