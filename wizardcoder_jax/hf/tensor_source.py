"""Where weights come from: named tensors under their Hugging Face names, read one at a time."""

import json
import math
import os
from collections.abc import Callable
from typing import Protocol

import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, read_text


class TensorSource(Protocol):
    """Named tensors under their Hugging Face names."""

    place: str  # where they come from, for messages

    def names(self) -> list[str]:
        """The names of all tensors, in the order in which they are best read."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one, without reading it."""
        ...

    def dtype(self, name: str) -> np.dtype:
        """The dtype that `read` gives."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        ...


def num_bytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """The size of a tensor."""
    return math.prod(shape) * dtype.itemsize


def shard_files(folder: str, single: str, index: str) -> dict[str, set[str] | None]:
    """The weight files of a folder, each with the tensors that the index says it holds (None where there is no index).

    Args:
        folder: local or gs://.
        single: name of the one file of a model without an index.
        index: name of the index of one with several.

    Raises:
        InputError: the index is malformed, or a file is missing.
    """
    path = os.path.join(folder, index)
    if not exists(path):
        return {_present(os.path.join(folder, single)): None}
    try:
        weight_map = json.loads(read_text(path))["weight_map"]
        held: dict[str, set[str]] = {}
        for name, file in weight_map.items():
            if os.path.basename(file) != file:
                raise ValueError(f"{file!r} is no file name")
            held.setdefault(file, set()).add(name)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not an index of weight files ({error})") from error
    return {_present(os.path.join(folder, file)): held[file] for file in sorted(held)}


def _present(file: str) -> str:
    if not exists(file):
        raise InputError(f"{file} is missing; a model folder holds one weight file, or all shards of its index")
    return file


def collect(files: dict[str, set[str] | None], list_names: Callable[[str], list[str]]) -> dict[str, str]:
    """Which file holds which tensor, in reading order.

    Args:
        files: as `shard_files` gives them.
        list_names: the tensors in a file.

    Raises:
        InputError: a tensor is in two files, or not in the one that the index names.
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
            raise InputError(f"{file}: the tensor {min(missing)} is missing, which the index says it holds")
    return found
