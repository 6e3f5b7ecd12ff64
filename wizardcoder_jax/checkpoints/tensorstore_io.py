"""Reads the arrays of a checkpoint in small parts and copies them to the devices of a mesh, to limit peak memory.

Orbax, which writes the arrays (checkpoints/manager.py), would read each shard as a whole, with memory for two or three copies.
"""

import collections
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts

from wizardcoder_jax.core.filesystem import is_remote

# Maximum bytes of a stored chunk, and approximate bytes of a part that is read at once. Threads do not return freed memory to
# the operating system: with parts of 16 MB, half a gigabyte remained allocated after a restore.
PART_BYTES = 2 << 20
_AHEAD_BYTES = 4 * PART_BYTES  # bytes of parts that are read concurrently
_AHEAD_BYTES_REMOTE = 128 * PART_BYTES  # the same limit for object stores, which have a higher latency
_CONTEXT = {"cache_pool#index": {"total_bytes_limit": 50_000_000}}  # bytes to cache for the index of a folder

Bounds = tuple[tuple[int, int], ...]  # (start, end) of a shard along each dim of the array


@dataclasses.dataclass(kw_only=True)
class _Shard:
    """A shard of an array while it is being read, with copies on one or more devices of this process."""

    shape: tuple[int, ...]
    dtype: np.dtype
    devices: list[Any]
    copies: list[jax.Array] = dataclasses.field(default_factory=list)  # one copy of the shard per device

    def fill(self, part: np.ndarray, start: tuple[int, ...]) -> None:
        """Write `part` into the shard, starting at index `start`."""
        if part.shape == self.shape:
            self.copies = [jax.device_put(part, device) for device in self.devices]
            return
        if not self.copies:
            self.copies = [jnp.zeros(self.shape, self.dtype, device=device) for device in self.devices]
        for i, device in enumerate(self.devices):
            self.copies[i] = jax.block_until_ready(_write_part(self.copies[i], jax.device_put(part, device), start))


@functools.partial(jax.jit, donate_argnums=0)
def _write_part(whole: jax.Array, part: jax.Array, start: tuple[int, ...]) -> jax.Array:
    return jax.lax.dynamic_update_slice(whole, part, start)


def read_arrays(folder: str | os.PathLike[str], shapes: dict[str, Any]) -> dict[str, jax.Array]:
    """Read arrays, in their stored dtypes, from a folder written by Orbax.

    Args:
        folder: a local or gs:// folder.
        shapes: name of each array -> its shape and sharding.

    Raises:
        ValueError: an array is missing, cannot be read, or has another shape.
    """
    context = ts.Context(_CONTEXT)
    opening = {name: ts.open(_spec(os.fspath(folder), name), context=context, open=True, read=True) for name in shapes}
    stores = {name: store.result() for name, store in opening.items()}
    shards: dict[str, list[_Shard]] = {}
    jobs = []
    for name, store in stores.items():
        shape, sharding = shapes[name].shape, shapes[name].sharding
        if tuple(store.shape) != tuple(shape):
            raise ValueError(f"array {name} has shape {tuple(store.shape)}, expected {tuple(shape)}")
        shards[name] = []
        for box, devices in _devices_by_box(sharding, shape).items():
            shard = _Shard(shape=tuple(stop - start for start, stop in box), dtype=store.dtype.numpy_dtype, devices=devices)
            shards[name].append(shard)
            jobs += [(store, shard, box, part) for part in _parts(box, store)]
    for shard, start, part in _read_ahead(jobs, _AHEAD_BYTES_REMOTE if is_remote(folder) else _AHEAD_BYTES):
        shard.fill(part, start)
    arrays = {}
    for name, leaf in shapes.items():
        copies = [array for shard in shards.pop(name) for array in shard.copies]
        arrays[name] = jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, copies)
    return arrays


def _spec(folder: str, name: str) -> dict[str, Any]:
    """Return the tensorstore specification of an array written by Orbax."""
    if is_remote(folder):
        bucket, _, path = folder.removeprefix("gs://").partition("/")
        base = {"driver": "gcs", "bucket": bucket, "path": f"{path}/"}
    else:
        base = {"driver": "file", "path": f"{folder}/"}
    store = {"driver": "ocdbt", "base": base, "path": f"{name}/", "cache_pool": "cache_pool#index"}
    return {"driver": "zarr", "kvstore": store, "recheck_cached_metadata": False, "recheck_cached_data": False}


def _devices_by_box(sharding: Any, shape: tuple[int, ...]) -> dict[Bounds, list[Any]]:
    """Return the distinct shards on this process's devices -> the devices that need them."""
    boxes: dict[Bounds, list[Any]] = collections.defaultdict(list)
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        bounds = (part.indices(size) for part, size in zip(index, shape, strict=True))
        boxes[tuple((start, stop) for start, stop, _ in bounds)].append(device)
    return boxes


def _parts(box: Bounds, store: Any) -> list[tuple[slice, ...]]:
    """Split `box` into parts of up to PART_BYTES or one chunk, at chunk boundaries where possible."""
    chunk = store.chunk_layout.read_chunk.shape or ()
    sizes = [min(size, stop - start) for size, (start, stop) in zip(chunk, box, strict=True)]
    for dim in reversed(range(len(sizes))):
        num_fit = PART_BYTES // max(1, math.prod(sizes) * store.dtype.numpy_dtype.itemsize)
        sizes[dim] = min(max(1, num_fit) * sizes[dim], box[dim][1] - box[dim][0])
    slices = [
        [slice(begin, min(begin + size, stop)) for begin in range(start, stop, max(1, size))]
        for size, (start, stop) in zip(sizes, box, strict=True)
    ]
    return list(itertools.product(*slices))


def _read_ahead(jobs: list[Any], num_bytes_ahead: int) -> Iterator[tuple[_Shard, tuple[int, ...], np.ndarray]]:
    """Yield the parts in order while up to `num_bytes_ahead` bytes of the next parts are read in the background."""
    pending: collections.deque[Any] = collections.deque()
    pending_bytes = 0
    for store, shard, box, part in jobs:
        num_bytes = math.prod(piece.stop - piece.start for piece in part) * shard.dtype.itemsize
        while pending and pending_bytes + num_bytes > num_bytes_ahead:
            earlier, start, read, size = pending.popleft()
            yield earlier, start, np.asarray(read.result())
            pending_bytes -= size
        start = tuple(piece.start - begin for piece, (begin, _) in zip(part, box, strict=True))
        pending.append((shard, start, store[part].read(order="C"), num_bytes))
        pending_bytes += num_bytes
    for shard, start, read, _ in pending:
        yield shard, start, np.asarray(read.result())
