"""A reader of the GGUF container: metadata, and tensors that are read and dequantized one at a time.

The layout is that of ggml-org/ggml, docs/gguf.md (versions 2 and 3, little-endian). The file is read by offset instead of being
mapped into memory, because mapped pages stay in memory after they have been read. The `gguf` package dequantizes.
"""

import dataclasses
import math
import os
from typing import Any, BinaryIO

import gguf
import numpy as np

from wizardcoder_jax.core.errors import InputError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = {  # type code in the file -> numpy type
    **{0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"},
}
_MAX_DIMS = 4
_MAX_NAME = 255  # maximum length of a key or tensor name, characters
_CHUNK_BYTES = 2**20  # bytes of float32 to dequantize at a time; twice as fast if they fit into a core's cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Type, shape and location of a tensor in the file."""

    kind: gguf.GGMLQuantizationType
    shape: tuple[int, ...]  # slowest dim first, as in numpy
    offset: int  # bytes from the start of the file
    num_bytes: int

    @property
    def num_rows(self) -> int:
        """Number of rows, each of `shape[-1]` elements."""
        return math.prod(self.shape[:-1])


class GgufReader:
    """An opened GGUF file.

    Attributes:
        metadata: key -> value: an int, float, bool or str, or a list of these.
        tensors: name -> info, in the order of the file.

    Raises:
        InputError: the file is not a GGUF file, is truncated, or is not supported (big-endian, one of several shards, unknown
            tensor types).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                _check_start(file, path)
                cursor = _Cursor(file, os.fstat(file.fileno()).st_size)
                num_tensors, num_keys = cursor.number("<u8"), cursor.number("<u8")
                self.metadata = _read_metadata(cursor, num_keys)
                self.tensors = self._read_infos(cursor, num_tensors)
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: truncated or not a GGUF file ({error}); download it again") from error
        if (parts := self.metadata.get("split.count", 1)) not in (0, 1):
            raise InputError(f"{path}: this file is one of {parts} shards of a model; join them with llama-gguf-split --merge")

    def _read_infos(self, cursor: "_Cursor", num_tensors: int) -> dict[str, TensorInfo]:
        found: dict[str, tuple[int, tuple[int, ...], int]] = {}
        for _ in range(num_tensors):
            name, num_dims = cursor.name(), cursor.number("<u4")
            if not 1 <= num_dims <= _MAX_DIMS or name in found:
                raise ValueError(f"the tensor {name} has {num_dims} dims or occurs twice")
            shape = tuple(cursor.number("<u8") for _ in range(num_dims))[::-1]
            found[name] = (cursor.number("<u4"), shape, cursor.number("<u8"))
        alignment = self.metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"general.alignment is {alignment!r}, expected an integer above 0")
        start = -(-cursor.position // alignment) * alignment
        infos = {name: self._info(name, *fields, start) for name, fields in found.items()}
        for name, info in infos.items():
            if info.offset + info.num_bytes > cursor.end:
                raise ValueError(f"{name} ends at byte {info.offset + info.num_bytes}, but the file at {cursor.end}")
        return infos

    def _info(self, name: str, kind: int, shape: tuple[int, ...], offset: int, start: int) -> TensorInfo:
        try:
            known = gguf.GGMLQuantizationType(kind)
            num_bytes = math.prod(gguf.quant_shape_to_byte_shape(shape, known))
            gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[known][1]), np.uint8), known)
        except NotImplementedError as error:
            raise InputError(f"{self.path}: the tensor {name} is of type {known.name}, which cannot be read") from error
        except (ValueError, KeyError) as error:
            problem = f"the tensor {name} {list(shape)} of type {kind} cannot be read ({error})"
            raise InputError(f"{self.path}: {problem}") from error
        return TensorInfo(kind=known, shape=shape, offset=start + offset, num_bytes=num_bytes)

    def read(self, name: str) -> np.ndarray:
        """Read and dequantize one tensor. Returns float32, with rows in the order of the file.

        Raises:
            InputError: the file is truncated.
        """
        info = self.tensors[name]
        array = np.empty((info.num_rows, info.shape[-1]), np.float32)
        row_bytes = info.num_bytes // max(1, info.num_rows)
        step = max(1, _CHUNK_BYTES // max(1, array.itemsize * info.shape[-1]))
        with open(self.path, "rb") as file:
            file.seek(info.offset)
            for start in range(0, info.num_rows, step):
                rows = array[start : start + step]
                data = np.fromfile(file, np.uint8, len(rows) * row_bytes)
                if data.size != len(rows) * row_bytes:
                    raise InputError(f"{self.path}: truncated within the tensor {name}")
                rows[:] = gguf.quants.dequantize(data[None], info.kind).reshape(rows.shape)
        return array.reshape(info.shape)


def _check_start(file: BinaryIO, path: str) -> None:
    """Check the magic number and the version.

    Raises:
        ValueError: the file is not a GGUF file.
        InputError: the byte order or version of the file is not supported.
    """
    if file.read(4) != MAGIC:
        raise ValueError(f"the file does not begin with {MAGIC.decode()}")
    version = file.read(4)
    if len(version) == 4 and version[:2] == b"\0\0":  # a small big-endian version number
        raise InputError(f"{path}: a big-endian GGUF file cannot be read; convert it with gguf-convert-endian")
    if int.from_bytes(version, "little") not in VERSIONS:
        raise InputError(f"{path}: GGUF version {int.from_bytes(version, 'little')} is not supported, only {VERSIONS}")


class _Cursor:
    """A reader of consecutive values in a file's header, which never reads past the end of the file."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self.end, self.position = file, end, file.tell()

    def take(self, num_bytes: int) -> bytes:
        """Read `num_bytes` bytes; raise ValueError if the file ends before that."""
        if self.position + num_bytes > self.end:
            raise ValueError(f"the file ends at byte {self.end}, within its header")
        self.position += num_bytes
        return self._file.read(num_bytes)

    def number(self, kind: str) -> Any:
        """Read one number of the numpy type `kind`."""
        return self.numbers(kind, 1)[0]

    def numbers(self, kind: str, count: int) -> list[Any]:
        """Read `count` numbers of the numpy type `kind`, and return Python numbers."""
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind).tolist()

    def text(self) -> str:
        """Read a string, which is stored as its length in bytes followed by its UTF-8 bytes."""
        return self.take(self.number("<u8")).decode("utf-8")

    def name(self) -> str:
        """Read the name of a key or tensor; raise ValueError if the name is too long or not printable."""
        name = self.text()
        if len(name) > _MAX_NAME or not name.isprintable():
            raise ValueError(f"invalid name of {len(name)} characters before byte {self.position}")
        return name

    def texts(self, count: int) -> list[str]:
        """Read `count` strings."""
        return [self.text() for _ in range(count)]


def _read_metadata(cursor: _Cursor, num_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key, kind = cursor.name(), cursor.number("<u4")
        if key in metadata:
            raise ValueError(f"the key {key} occurs twice")
        is_list = kind == _ARRAY
        if is_list:
            kind = cursor.number("<u4")
        count = cursor.number("<u8") if is_list else 1
        if kind == _STRING:
            values = cursor.texts(count)
        elif kind in _NUMBERS:
            values = cursor.numbers(_NUMBERS[kind], count)
        else:
            raise ValueError(f"the key {key} has the unknown type {kind}")
        metadata[key] = values if is_list else values[0]
    return metadata
