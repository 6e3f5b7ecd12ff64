"""The common interface of weight files, whose tensors have Hugging Face names and are read one at a time."""

import json
import math
import os
from collections.abc import Callable
from typing import Protocol

import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, read_text


class TensorSource(Protocol):
    """A source of tensors under their Hugging Face names."""

    location: str  # file or folder, for messages

    def names(self) -> list[str]:
        """Return the names of all tensors, in the best order for reading them."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        ...

    def dtype(self, name: str) -> np.dtype:
        """Return the dtype of the array that `read` returns."""
        ...

    def read(self, name: str) -> np.ndarray:
        """Read a tensor."""
        ...


def num_bytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Return the size of a tensor in bytes."""
    return math.prod(shape) * dtype.itemsize


def shard_files(folder: str, single: str, index: str) -> dict[str, set[str] | None]:
    """Return the weight files of a folder: path -> names of its tensors according to the index (None without an index).

    Args:
        folder: path of the folder, local or gs://.
        single: name of the weight file if there is only one.
        index: name of the index file if there are several weight files.

    Raises:
        InputError: the index is malformed, or a file is missing.
    """
    path = os.path.join(folder, index)
    if not exists(path):
        return {_require_file(os.path.join(folder, single)): None}
    try:
        weight_map = json.loads(read_text(path))["weight_map"]
        names_by_file: dict[str, set[str]] = {}
        for name, file in weight_map.items():
            if os.path.basename(file) != file:
                raise ValueError(f"{file!r} is not a file name")
            names_by_file.setdefault(file, set()).add(name)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not an index of weight files ({error})") from error
    return {_require_file(os.path.join(folder, file)): names_by_file[file] for file in sorted(names_by_file)}


def _require_file(file: str) -> str:
    if not exists(file):
        raise InputError(f"{file} is missing; a model folder needs one weight file, or all shards that its index lists")
    return file


def map_tensors_to_files(files: dict[str, set[str] | None], list_names: Callable[[str], list[str]]) -> dict[str, str]:
    """Return the file of each tensor, in reading order.

    Args:
        files: from `shard_files`.
        list_names: function that returns the names of the tensors in a file.

    Raises:
        InputError: a tensor is in two files, or a file does not match the index.
    """
    found: dict[str, str] = {}
    for file, expected in files.items():
        names = list_names(file)
        for name in names:
            if name in found:
                raise InputError(f"{file}: the tensor {name} is also in {found[name]}")
            if expected is not None and name not in expected:
                raise InputError(f"{file}: the tensor {name} is not in the index")
            found[name] = file
        if expected is not None and (missing := expected - set(names)):
            raise InputError(f"{file}: the tensor {min(missing)} is missing, but the index lists it")
    return found
