"""PyTorch's own files (pytorch_model.bin), tensors only: nothing else that a pickle can hold is ever loaded."""

import re
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import is_remote, open_bytes
from wizardcoder_jax.hf.tensor_source import collect, shard_files

SINGLE_FILE, INDEX_FILE = "pytorch_model.bin", "pytorch_model.bin.index.json"
_DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


class TorchSource:
    """The tensors of a folder's pytorch_model.bin, or of shards with an index, local or gs://; a TensorSource.

    Files of today's zip format are mapped into memory, and anew for each tensor, so that the pages of those read before
    leave memory; older files, and those on gs://, are held one whole shard at a time.

    Raises:
        InputError: no such files, torch is not installed, or one is truncated or holds anything but tensors.
    """

    def __init__(self, folder: str) -> None:
        self.place = folder
        self._whole: tuple[str, dict[str, Any]] | None = None
        self._about: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self._files = collect(shard_files(folder, SINGLE_FILE, INDEX_FILE), self._list_names)

    def names(self) -> list[str]:
        """See TensorSource."""
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """See TensorSource."""
        return self._about[name][1]

    def dtype(self, name: str) -> np.dtype:
        """See TensorSource."""
        return self._about[name][0]

    def read(self, name: str) -> np.ndarray:
        """See TensorSource."""
        import torch

        tensor = self._load(self._files[name])[name].detach().contiguous()
        array = tensor.reshape(-1).view(torch.uint8).numpy().copy()  # numpy has no bfloat16 of torch's
        return array.view(self.dtype(name)).reshape(self.shape(name))

    def _list_names(self, path: str) -> list[str]:
        import_error = f"{path}: reading .bin files needs torch: pip install torch  (or convert the model to safetensors)"
        try:
            import torch
        except ImportError as error:
            raise InputError(import_error) from error
        tensors = self._load(path)
        for name, tensor in tensors.items():
            if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
                raise InputError(f"{path}: the entry {name!r} is a {type(tensor).__name__}, no tensor; refused")
            kind = str(tensor.dtype).removeprefix("torch.")
            if kind not in _DTYPES or tensor.layout != torch.strided or tensor.device.type != "cpu":
                raise InputError(f"{path}: the tensor {name} is {kind}, {tensor.layout} on {tensor.device}; refused")
            self._about[name] = np.dtype(_DTYPES[kind]), tuple(tensor.shape)
        return list(tensors)

    def _load(self, path: str) -> dict[str, Any]:
        import torch

        if self._whole is not None and self._whole[0] == path:
            return self._whole[1]
        self._whole = None
        try:
            if not is_remote(path) and zipfile.is_zipfile(path):
                return _as_dict(path, torch.load(path, map_location="cpu", weights_only=True, mmap=True))
            with open_bytes(path) as file:
                self._whole = path, _as_dict(path, torch.load(file, map_location="cpu", weights_only=True))
            return self._whole[1]
        except InputError:
            raise
        except Exception as error:  # pickle, zip and torch's own errors, RuntimeError and OSError among them
            forbidden = re.search(r"GLOBAL (\S+)", str(error))
            if forbidden is not None:
                raise InputError(f"{path}: its pickle holds {forbidden[1]}, not tensors alone; refused") from error
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"{path}: truncated or no file of tensors ({reason}); fetch it again") from error


def _as_dict(path: str, loaded: Any) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, expected named tensors; refused")
    return loaded
