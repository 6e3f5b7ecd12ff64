"""A reader of pytorch_model.bin. It loads only tensors, never other objects that a pickle can contain."""

import re
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import is_remote, open_bytes
from wizardcoder_jax.hf.tensor_source import map_tensors_to_files, shard_files

SINGLE_FILE, INDEX_FILE = "pytorch_model.bin", "pytorch_model.bin.index.json"
_DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


class TorchSource:
    """A TensorSource for a folder (local or gs://) with pytorch_model.bin, or with shards and an index.

    Local files in the current zip format are mapped into memory separately for each tensor, so that the pages of earlier
    tensors are freed. Other files are loaded one whole shard at a time.

    Raises:
        InputError: the files are missing, torch is not installed, or a file is truncated or contains anything but tensors.
    """

    def __init__(self, folder: str) -> None:
        self.location = folder
        self._loaded_shard: tuple[str, dict[str, Any]] | None = None
        self._info: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self._files = map_tensors_to_files(shard_files(folder, SINGLE_FILE, INDEX_FILE), self._list_names)

    def names(self) -> list[str]:
        """See TensorSource."""
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """See TensorSource."""
        return self._info[name][1]

    def dtype(self, name: str) -> np.dtype:
        """See TensorSource."""
        return self._info[name][0]

    def read(self, name: str) -> np.ndarray:
        """See TensorSource."""
        import torch

        tensor = self._load(self._files[name])[name].detach().contiguous()
        array = tensor.reshape(-1).view(torch.uint8).numpy().copy()  # torch cannot convert bfloat16 to numpy
        return array.view(self.dtype(name)).reshape(self.shape(name))

    def _list_names(self, path: str) -> list[str]:
        import_error = f"{path}: .bin files need torch; run: pip install torch  (or convert the model to safetensors)"
        try:
            import torch
        except ImportError as error:
            raise InputError(import_error) from error
        tensors = self._load(path)
        for name, tensor in tensors.items():
            if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
                raise InputError(f"{path}: expected only named tensors, found the entry {name!r} ({type(tensor).__name__})")
            kind = str(tensor.dtype).removeprefix("torch.")
            if kind not in _DTYPES or tensor.layout != torch.strided or tensor.device.type != "cpu":
                found = f"dtype {kind}, layout {tensor.layout}, device {tensor.device}"
                raise InputError(f"{path}: the tensor {name} is not supported ({found})")
            self._info[name] = np.dtype(_DTYPES[kind]), tuple(tensor.shape)
        return list(tensors)

    def _load(self, path: str) -> dict[str, Any]:
        import torch

        if self._loaded_shard is not None and self._loaded_shard[0] == path:
            return self._loaded_shard[1]
        self._loaded_shard = None
        try:
            if not is_remote(path) and zipfile.is_zipfile(path):
                return _as_dict(path, torch.load(path, map_location="cpu", weights_only=True, mmap=True))
            with open_bytes(path) as file:
                self._loaded_shard = path, _as_dict(path, torch.load(file, map_location="cpu", weights_only=True))
            return self._loaded_shard[1]
        except InputError:
            raise
        except Exception as error:  # errors of pickle, zip and torch, including RuntimeError and OSError
            forbidden = re.search(r"GLOBAL (\S+)", str(error))
            if forbidden is not None:
                raise InputError(f"{path}: the pickle contains {forbidden[1]}, not only tensors; it is rejected") from error
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"{path}: truncated or not a file of tensors ({reason}); download it again") from error


def _as_dict(path: str, loaded: Any) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected a dict of named tensors, found a {type(loaded).__name__}")
    return loaded
