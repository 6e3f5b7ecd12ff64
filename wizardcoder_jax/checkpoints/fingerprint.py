"""Checksums of sharded arrays, computed without moving data between devices and independent of the mesh."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

# (seed, odd multiplier of the index) of each sum: digits of sqrt(2), the golden ratio, sqrt(3) and sqrt(5).
_CONSTANTS = ((0x6A09E667, 0x9E3779B1), (0xBB67AE85, 0x3C6EF373))


def fingerprint_arrays(arrays: dict[str, Any]) -> dict[str, str]:
    """Return the dtype, shape and checksum of each array as a string, e.g. "float32[2,3] 0123456789abcdef".

    The checksum consists of two sums modulo 2^32 over all elements. Each term is a hash of the element's bits and its linear
    index. Integer sums do not depend on the order of their terms, so the checksum does not depend on the sharding. One compiled
    program computes the sums of all arrays, with almost no temporary memory.

    Args:
        arrays: JAX arrays of up to 32 bits per element by name, all on the same mesh.
    """
    if not arrays:
        return {}
    mesh = next((a.sharding.mesh for a in arrays.values() if isinstance(a.sharding, NamedSharding)), None)
    sums = np.asarray(_compile_checksums(None if mesh is None else NamedSharding(mesh, PartitionSpec()))(list(arrays.values())))
    pairs = zip(arrays.items(), sums, strict=True)
    return {name: f"{describe_array(array)} {first:08x}{second:08x}" for (name, array), (first, second) in pairs}


def describe_array(array: Any) -> str:
    """Return the dtype and shape of an array or jax.ShapeDtypeStruct as a string, e.g. "float32[2,3]"."""
    return f"{jnp.dtype(array.dtype).name}[{','.join(map(str, array.shape))}]"


@functools.cache
def _compile_checksums(replicated: NamedSharding | None) -> Any:
    return jax.jit(array_checksums, out_shardings=replicated)


def array_checksums(arrays: list[jax.Array]) -> jax.Array:
    """Return the two checksums of each array, uint32 [len(arrays), 2]."""
    return jnp.stack([_sums(array) for array in arrays])


def _sums(array: jax.Array) -> jax.Array:
    index = jnp.zeros(array.shape, jnp.uint32)  # linear index of each element, modulo 2^32
    for dim in range(array.ndim):  # a separate iota for each dim, because XLA can shard it like the array
        stride = math.prod(array.shape[dim + 1 :]) % 2**32
        index += jax.lax.broadcasted_iota(jnp.uint32, array.shape, dim) * jnp.uint32(stride)
    words = _words(array)
    mixed = tuple(_mix(words ^ (index * jnp.uint32(factor) + jnp.uint32(seed))) for seed, factor in _CONSTANTS)
    # A single reduction computes both sums: with two, XLA for CPU would store their operands, twice the size of the array.
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
    """Hash 32 bits with a bijective function, so that changing a single element always changes the sum.

    Source: fmix32 of MurmurHash3, github.com/aappleby/smhasher, src/MurmurHash3.cpp.
    """
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
