"""Reads a checkpoint's arrays onto a mesh in parts, so that little more memory is needed than the arrays themselves take.

Orbax, which writes them (checkpoints/manager.py), would read every shard whole and hold it two or three times meanwhile.
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

# Arrays are stored in chunks of at most this size and read in parts of about it; what a thread frees stays in its heap, so that
# of a size of 16 MB half a gigabyte stayed after a restore.
PART_BYTES = 2 << 20
_AHEAD_BYTES = 4 * PART_BYTES  # being read at once
_AHEAD_BYTES_REMOTE = 128 * PART_BYTES  # and from an object store, which takes its time to answer
_CONTEXT = {"cache_pool#index": {"total_bytes_limit": 50_000_000}}  # of where in a folder's files things are

Bounds = tuple[tuple[int, int], ...]  # of each dim, where a piece begins and where it ends


@dataclasses.dataclass(kw_only=True)
class _Shard:
    """A piece of an array that some of this process's devices hold, while it is filled."""

    shape: tuple[int, ...]
    dtype: np.dtype
    devices: list[Any]
    held: list[jax.Array] = dataclasses.field(default_factory=list)  # on each of the devices

    def fill(self, part: np.ndarray, start: tuple[int, ...]) -> None:
        """Takes `part`, which begins at `start` of this shard."""
        if part.shape == self.shape:
            self.held = [jax.device_put(part, device) for device in self.devices]
            return
        if not self.held:
            self.held = [jnp.zeros(self.shape, self.dtype, device=device) for device in self.devices]
        for i, device in enumerate(self.devices):
            self.held[i] = jax.block_until_ready(_place(self.held[i], jax.device_put(part, device), start))


@functools.partial(jax.jit, donate_argnums=0)
def _place(whole: jax.Array, part: jax.Array, start: tuple[int, ...]) -> jax.Array:
    return jax.lax.dynamic_update_slice(whole, part, start)


def read_arrays(folder: str | os.PathLike[str], shapes: dict[str, Any]) -> dict[str, jax.Array]:
    """The arrays of these names in a folder that Orbax wrote, in the dtypes they are held in.

    Args:
        folder: local or gs://.
        shapes: name -> shape and sharding.

    Raises:
        ValueError: one is missing, cannot be read, or has another shape.
    """
    context = ts.Context(_CONTEXT)
    opening = {name: ts.open(_spec(os.fspath(folder), name), context=context, open=True, read=True) for name in shapes}
    stores = {name: store.result() for name, store in opening.items()}
    shards: dict[str, list[_Shard]] = {}
    jobs = []
    for name, store in stores.items():
        shape, sharding = shapes[name].shape, shapes[name].sharding
        if tuple(store.shape) != tuple(shape):
            raise ValueError(f"{name} has shape {tuple(store.shape)}, not {tuple(shape)}")
        shards[name] = []
        for box, devices in _devices_by_box(sharding, shape).items():
            shard = _Shard(shape=tuple(stop - start for start, stop in box), dtype=store.dtype.numpy_dtype, devices=devices)
            shards[name].append(shard)
            jobs += [(store, shard, box, part) for part in _parts(box, store)]
    for shard, start, part in _read_ahead(jobs, _AHEAD_BYTES_REMOTE if is_remote(folder) else _AHEAD_BYTES):
        shard.fill(part, start)
    whole = {}
    for name, leaf in shapes.items():
        held = [array for shard in shards.pop(name) for array in shard.held]
        whole[name] = jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, held)
    return whole


def _spec(folder: str, name: str) -> dict[str, Any]:
    """Where tensorstore finds an array that Orbax wrote."""
    if is_remote(folder):
        bucket, _, path = folder.removeprefix("gs://").partition("/")
        base = {"driver": "gcs", "bucket": bucket, "path": f"{path}/"}
    else:
        base = {"driver": "file", "path": f"{folder}/"}
    store = {"driver": "ocdbt", "base": base, "path": f"{name}/", "cache_pool": "cache_pool#index"}
    return {"driver": "zarr", "kvstore": store, "recheck_cached_metadata": False, "recheck_cached_data": False}


def _devices_by_box(sharding: Any, shape: tuple[int, ...]) -> dict[Bounds, list[Any]]:
    """The different pieces that this process's devices hold, each with the devices that hold it."""
    found: dict[Bounds, list[Any]] = collections.defaultdict(list)
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        bounds = (part.indices(size) for part, size in zip(index, shape, strict=True))
        found[tuple((start, stop) for start, stop, _ in bounds)].append(device)
    return found


def _parts(box: Bounds, store: Any) -> list[tuple[slice, ...]]:
    """Cuts `box` into parts of whole chunks where they fit, of up to PART_BYTES or one chunk."""
    chunk = store.chunk_layout.read_chunk.shape or ()
    sizes = [min(size, stop - start) for size, (start, stop) in zip(chunk, box, strict=True)]
    for dim in reversed(range(len(sizes))):
        num_fit = PART_BYTES // max(1, math.prod(sizes) * store.dtype.numpy_dtype.itemsize)
        sizes[dim] = min(max(1, num_fit) * sizes[dim], box[dim][1] - box[dim][0])
    along = [
        [slice(begin, min(begin + size, stop)) for begin in range(start, stop, max(1, size))]
        for size, (start, stop) in zip(sizes, box, strict=True)
    ]
    return list(itertools.product(*along))


def _read_ahead(jobs: list[Any], num_bytes_ahead: int) -> Iterator[tuple[_Shard, tuple[int, ...], np.ndarray]]:
    """The parts in order, the next ones being read meanwhile as far as `num_bytes_ahead` go."""
    waiting: collections.deque[Any] = collections.deque()
    flying = 0
    for store, shard, box, part in jobs:
        num_bytes = math.prod(piece.stop - piece.start for piece in part) * shard.dtype.itemsize
        while waiting and flying + num_bytes > num_bytes_ahead:
            before, start, reading, size = waiting.popleft()
            yield before, start, np.asarray(reading.result())
            flying -= size
        start = tuple(piece.start - begin for piece, (begin, _) in zip(part, box, strict=True))
        waiting.append((shard, start, store[part].read(order="C"), num_bytes))
        flying += num_bytes
    for shard, start, reading, _ in waiting:
        yield shard, start, np.asarray(reading.result())
