"""Moments held in fewer bits than they are computed in: bfloat16, or 8 bits a number with a scale for each block.

Any optax transformation can hold its moments so: they are made float32 again for the update.

Rounding is stochastic, so that what is held is right in expectation. To the nearest, a second moment with decay 0.999 would
stand still: a step changes it by a thousandth, and half the distance to the next bfloat16 is two thousandths of it.

The idea of 8 bits, of blocks, and of steps that are finer for small numbers is that of Dettmers et al., arXiv 2110.02861
(bitsandbytes, which also leaves arrays of fewer than 4096 numbers as they are). Their steps are a table; here they are a power:
a code c of a block with largest magnitude s stands for s (c/127)^2 with c's sign, or, for moments that are never negative,
s (c/255)^4: relative to the largest, numbers down to 6e-5 and 2e-10 are told from 0.
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

MAX_BLOCK = 128  # numbers that share a scale, at most
MIN_BLOCK = 16  # a block is no smaller for the sake of a mesh
MAX_SPLIT = 64  # devices among which a dim may be split without cutting a block
MIN_SIZE = 4096  # smaller arrays stay float32
SECOND = "nu"  # optax's name of second moments, which are never negative

MomentDtype = Literal["float32", "bfloat16", "int8"]


class QuantizedMoment(NamedTuple):
    """A moment in 8 bits."""

    codes: nnx.Param  # int8, or uint8 where nothing is negative; of the moment's shape and axes
    scales: nnx.Param  # float32, of the same shape and axes but for the dim that is cut into blocks: D / block


class QuantizedMomentsState(NamedTuple):
    """The state of a transformation whose moments are held in fewer bits."""

    count: jax.Array  # int32, updates so far: seeds the rounding
    inner: Any


def quantize_moments(
    inner: optax.GradientTransformation, dtype: MomentDtype, in_parts: bool = False
) -> optax.GradientTransformation:
    """`inner` with its moments, the nnx.Params of its state, held in `dtype`; in parts if so asked (parts.py)."""

    def hold(state: Any, key: jax.Array) -> Any:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_param)
        keys = jax.random.split(key, len(leaves))
        held = [_hold(leaf, SECOND in _names(path), dtype, key) for (path, leaf), key in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(treedef, held)

    def release(state: Any) -> Any:
        return jax.tree.map(_release, state, is_leaf=lambda node: isinstance(node, QuantizedMoment) or _is_param(node))

    def init(params: Any) -> QuantizedMomentsState:
        return QuantizedMomentsState(jnp.int32(0), hold(inner.init(params), jax.random.key(0)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, QuantizedMomentsState]:
        def release_update_hold(key: jax.Array, updates: Any, held: Any, params: Any) -> tuple[Any, Any]:
            updates, new = inner.update(updates, release(held), params)
            return updates, hold(new, key)

        count = state.count + 1
        key = jax.random.fold_in(jax.random.key(0), count)
        part = functools.partial(update_layerwise, release_update_hold) if in_parts else release_update_hold
        updates, held = part(key, updates, state.inner, params)
        return updates, QuantizedMomentsState(count, held)

    return optax.GradientTransformation(init, update)


def _is_param(node: Any) -> bool:
    return isinstance(node, nnx.Param)


def _names(path: tuple[Any, ...]) -> list[str]:
    return [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]


def _hold(leaf: Any, is_second: bool, dtype: MomentDtype, key: jax.Array) -> Any:
    is_moment = _is_param(leaf) and jax.tree.leaves(leaf)  # not a count, nor a parameter that is another optimizer's
    if dtype == "float32" or not is_moment:
        return leaf
    value, axes = leaf[...], leaf.axes
    if dtype == "bfloat16":
        return nnx.Param(round_to_bfloat16(value, key), axes=axes)
    dim, block = choose_block(value.shape, axes)
    if value.size < MIN_SIZE or block == 1:  # with a scale for each number there is nothing to gain
        return leaf
    codes, scales = quantize_blocks(value, dim, block, is_second, key)
    return QuantizedMoment(nnx.Param(codes, axes=axes), nnx.Param(scales, axes=axes))


def _release(node: Any) -> Any:
    if isinstance(node, QuantizedMoment):
        return nnx.Param(dequantize_blocks(node.codes[...], node.scales[...]), axes=node.codes.axes)
    if _is_param(node) and jax.tree.leaves(node):
        return nnx.Param(node[...].astype(jnp.float32), axes=node.axes)
    return node


def choose_block(shape: tuple[int, ...], axes: Axes) -> tuple[int, int]:
    """Which dim of a moment is cut into blocks, counted from the end (-1 or -2), and how many numbers a block has.

    It follows from the shape and the logical axes alone, so that a state fits any mesh. A dim that no mesh splits is best;
    of one that may be split a block lies in each device's part. Else the dim with the larger blocks is taken: on TPU an
    array whose last dim is short takes the memory of one of 128.
    """
    found = [(_block(shape[dim], axes[dim]), dim) for dim in (-1, -2) if -dim <= len(axes)]
    whole = [(block, dim) for block, dim in found if axes[dim] is None and block > MIN_BLOCK]
    block, dim = max(whole or found)
    return dim, block


def _block(size: int, axis: str | None) -> int:
    split = 1 if axis is None else MAX_SPLIT
    while split > 1 and size // math.gcd(size, split) < MIN_BLOCK:
        split //= 2
    part = size // math.gcd(size, split)
    return max(block for block in range(1, min(part, MAX_BLOCK) + 1) if part % block == 0)


def quantize_blocks(x: jax.Array, dim: int, block: int, is_second: bool, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A float32 moment as codes of its shape, and scales; each code is one of the two next to the number.

    Args:
        x: the moment.
        dim: which is cut into blocks, from the end.
        block: numbers of a block; divides the dim.
        is_second: whether it is never negative.
        key: of the rounding.
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
    # a second moment that is not 0 never becomes 0: its root divides
    codes = jnp.maximum(codes, magnitude > 0).astype(jnp.uint8) if is_second else (codes * jnp.sign(blocks)).astype(jnp.int8)
    return codes.reshape(x.shape), jnp.squeeze(scales, axis + 1)


def dequantize_blocks(codes: jax.Array, scales: jax.Array) -> jax.Array:
    """What codes and scales stand for, float32. The dim that is in blocks is the one that differs."""
    axis = next(i for i, (size, number) in enumerate(zip(codes.shape, scales.shape, strict=True)) if size != number)
    blocks = codes.reshape(*codes.shape[:axis], scales.shape[axis], -1, *codes.shape[axis + 1 :]).astype(jnp.float32)
    values = (blocks / 255) ** 4 if codes.dtype == jnp.uint8 else jnp.sign(blocks) * (blocks / 127) ** 2
    return (values * jnp.expand_dims(scales, axis + 1)).reshape(codes.shape)


def round_to_bfloat16(x: jax.Array, key: jax.Array) -> jax.Array:
    """Float32 as one of the two bfloat16 next to it, the nearer the likelier."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint32) >> 16
    kept = jnp.where(jnp.isfinite(x), bits + noise, bits) & jnp.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(kept, jnp.float32).astype(jnp.bfloat16)
