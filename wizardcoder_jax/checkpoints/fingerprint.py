"""Checksums of arrays, computed on the devices that have them: the same value on any mesh, without moving any element."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

# A seed and an odd factor of the index for each of the two sums: digits of sqrt(2), sqrt(3), the golden ratio and sqrt(5).
_CONSTANTS = ((0x6A09E667, 0x9E3779B1), (0xBB67AE85, 0x3C6EF373))


def fingerprint_arrays(arrays: dict[str, Any]) -> dict[str, str]:
    """Return a line for each array, "float32[2,3] 0123456789abcdef": dtype, shape, and a 64-bit checksum of bits and positions.

    The checksum is two sums modulo 2^32, over all elements, of a mix of the element's bits and its linear index. Integer sums
    are exact in any order, so neither the mesh nor the strategy changes them. All arrays take one compiled pass, which keeps
    only the sums.

    Args:
        arrays: jax arrays of up to 32 bits per element, on one mesh.
    """
    if not arrays:
        return {}
    mesh = next((a.sharding.mesh for a in arrays.values() if isinstance(a.sharding, NamedSharding)), None)
    sums = np.asarray(_compile_checksums(None if mesh is None else NamedSharding(mesh, PartitionSpec()))(list(arrays.values())))
    pairs = zip(arrays.items(), sums, strict=True)
    return {name: f"{describe_array(array)} {first:08x}{second:08x}" for (name, array), (first, second) in pairs}


def describe_array(array: Any) -> str:
    """Return dtype and shape of an array or of its abstract form, e.g. "float32[2,3]"."""
    return f"{jnp.dtype(array.dtype).name}[{','.join(map(str, array.shape))}]"


@functools.cache
def _compile_checksums(replicated: NamedSharding | None) -> Any:
    return jax.jit(array_checksums, out_shardings=replicated)


def array_checksums(arrays: list[jax.Array]) -> jax.Array:
    """Return the two sums of each array, uint32 [len(arrays), 2]."""
    return jnp.stack([_sums(array) for array in arrays])


def _sums(array: jax.Array) -> jax.Array:
    index = jnp.zeros(array.shape, jnp.uint32)  # linear, modulo 2^32
    for dim in range(array.ndim):  # one iota per dim, which XLA shards like the array
        stride = math.prod(array.shape[dim + 1 :]) % 2**32
        index += jax.lax.broadcasted_iota(jnp.uint32, array.shape, dim) * jnp.uint32(stride)
    words = _words(array)
    mixed = tuple(_mix(words ^ (index * jnp.uint32(factor) + jnp.uint32(seed))) for seed, factor in _CONSTANTS)
    # Both sums in one reduction: with two, XLA for CPU would first write out the operands of each, twice the array's size.
    add = lambda left, right: (left[0] + right[0], left[1] + right[1])  # noqa: E731
    return jnp.stack(jax.lax.reduce(mixed, (jnp.uint32(0),) * 2, add, tuple(range(array.ndim))))


def _words(array: jax.Array) -> jax.Array:
    """Return the bits of each element as uint32."""
    kind = array.dtype
    if kind == jnp.bool_:
        return array.astype(jnp.uint32)
    if jnp.issubdtype(kind, jnp.integer) and jnp.iinfo(kind).bits < 8:
        array = array.astype(jnp.int8)
    bits = jnp.dtype(array.dtype).itemsize * 8
    return jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)


def _mix(words: jax.Array) -> jax.Array:
    """Scramble 32 bits one-to-one, so that a change of a single element always changes the sum.

    Source: fmix32 of MurmurHash3, github.com/aappleby/smhasher, src/MurmurHash3.cpp.
    """
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
