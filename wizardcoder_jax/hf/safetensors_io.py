"""Reading and writing safetensors files one tensor at a time, on disks and object stores.

The safetensors library maps files into memory and writes complete shards from memory, so it needs memory for more than one
tensor, and it does not support gs://.

Format of a file (huggingface/safetensors, README): the length of the header as 8 bytes, little-endian; a JSON header with
{name: {"dtype", "shape", "data_offsets": [begin, end]}} and "__metadata__"; then the tensors without gaps. Offsets are counted
from the end of the header.
"""

import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import open_bytes
from wizardcoder_jax.hf.tensor_source import map_tensors_to_files, num_bytes, shard_files

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # limit of the safetensors library
_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class TensorEntry(NamedTuple):
    """The dtype, shape and location of a tensor in a file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    num_bytes: int


def read_header(path: str, file: IO[bytes]) -> dict[str, TensorEntry]:
    """Read the header of an open file. Returns its tensors by name, in the order of their data.

    Raises:
        InputError: the file is truncated (the message names the first tensor that is cut off) or malformed.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
    if length is None or length > min(size - 8, MAX_HEADER_BYTES):
        raise InputError(f"{path}: truncated or not a safetensors file ({size} bytes); download it again")
    try:
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        entries = {name: _entry(name, fields, 8 + length) for name, fields in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: truncated or not a safetensors file ({error}); download it again") from error
    in_order = dict(sorted(entries.items(), key=lambda item: item[1].offset))
    end = 8 + length
    for name, entry in in_order.items():
        if entry.offset != end:
            raise InputError(f"{path}: not a safetensors file: the tensor {name} starts at byte {entry.offset}, expected {end}")
        end += entry.num_bytes
        if end > size:
            raise InputError(f"{path}: truncated: the tensor {name} ends at byte {end}, the file at {size}; download it again")
    if end != size:
        raise InputError(f"{path}: not a safetensors file: {size - end} bytes after the last tensor; download it again")
    return in_order


def _entry(name: str, fields: dict[str, Any], data_start: int) -> TensorEntry:
    if fields["dtype"] not in _DTYPES:
        raise ValueError(f"the dtype of {name} is {fields['dtype']}, but only {', '.join(_DTYPES)} are supported")
    dtype, shape = _DTYPES[fields["dtype"]], tuple(fields["shape"])
    begin, end = fields["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"{name} has shape {list(shape)} and data_offsets {[begin, end]}, which are not all integers >= 0")
    expected = num_bytes(dtype, shape)
    if end - begin != expected:
        raise ValueError(f"{name} of shape {list(shape)} has {end - begin} bytes, expected {expected}")
    return TensorEntry(dtype, shape, data_start + begin, expected)


class SafetensorsSource:
    """A TensorSource for a Hugging Face folder (local or gs://) with model.safetensors, or with shards and an index.

    Raises:
        InputError: these files are missing, truncated or malformed, or do not match the index.
    """

    def __init__(self, folder: str) -> None:
        self.location = folder
        self._headers: dict[str, dict[str, TensorEntry]] = {}
        self._files = map_tensors_to_files(shard_files(folder, SINGLE_FILE, INDEX_FILE), self._list_names)

    def _list_names(self, path: str) -> list[str]:
        with open_bytes(path) as file:
            self._headers[path] = read_header(path, file)
        return list(self._headers[path])

    def _find(self, name: str) -> TensorEntry:
        return self._headers[self._files[name]][name]

    def names(self) -> list[str]:
        """See TensorSource."""
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """See TensorSource."""
        return self._find(name).shape

    def dtype(self, name: str) -> np.dtype:
        """See TensorSource."""
        return self._find(name).dtype

    def read(self, name: str) -> np.ndarray:
        """See TensorSource."""
        path, entry = self._files[name], self._find(name)
        buffer = np.empty(entry.num_bytes, np.uint8)
        try:
            with open_bytes(path) as file:
                file.seek(entry.offset)
                num_read = file.readinto(buffer.data)  # type: ignore[attr-defined]
        except OSError as error:
            raise InputError(f"{path}: the tensor {name} cannot be read: {error.strerror or error}") from error
        if num_read != entry.num_bytes:
            raise InputError(f"{path}: truncated: the tensor {name} ended after {num_read} of {entry.num_bytes} bytes")
        return buffer.view(entry.dtype).reshape(entry.shape)


class ShardPlan(NamedTuple):
    """A safetensors file to write: its name, and the dtypes and shapes of its tensors by name."""

    file: str
    tensors: dict[str, tuple[np.dtype, tuple[int, ...]]]


def plan_shards(tensors: Mapping[str, tuple[np.dtype, tuple[int, ...]]], max_shard_bytes: int) -> list[ShardPlan]:
    """Distribute tensors, in order, over files of at most `max_shard_bytes`. A larger tensor gets its own file."""
    shards: list[dict[str, tuple[np.dtype, tuple[int, ...]]]] = [{}]
    shard_bytes = 0
    for name, (dtype, shape) in tensors.items():
        tensor_bytes = num_bytes(dtype, shape)
        if shards[-1] and shard_bytes + tensor_bytes > max_shard_bytes:
            shards.append({})
            shard_bytes = 0
        shards[-1][name] = dtype, shape
        shard_bytes += tensor_bytes
    if len(shards) == 1:
        return [ShardPlan(SINGLE_FILE, shards[0])]
    return [ShardPlan(f"model-{i:05}-of-{len(shards):05}.safetensors", shard) for i, shard in enumerate(shards, start=1)]


def build_index(shards: Sequence[ShardPlan]) -> dict[str, Any]:
    """Return the content of model.safetensors.index.json."""
    sizes = [num_bytes(dtype, shape) for shard in shards for dtype, shape in shard.tensors.values()]
    weight_map = {name: shard.file for shard in shards for name in shard.tensors}
    return {"metadata": {"total_size": sum(sizes)}, "weight_map": dict(sorted(weight_map.items()))}


class ShardWriter:
    """A writer of one safetensors file: it writes the header first, then the tensors in the order of the plan.

    Args:
        file: binary file that is open for writing.
        plan: the tensors to write.
    """

    def __init__(self, file: IO[bytes], plan: ShardPlan) -> None:
        self._file, self._remaining = file, list(plan.tensors)[::-1]
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, (dtype, shape) in plan.tensors.items():
            end = offset + num_bytes(dtype, shape)
            header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # aligns the tensors to 8 bytes, as the safetensors library does
        file.write(struct.pack("<Q", len(text)) + text)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Write the next tensor of the plan."""
        assert name == self._remaining.pop(), f"{name} is not the next tensor of the plan"
        self._file.write(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
