"""Weights: from a source of Hugging Face tensors to a sharded Transformer, and back to safetensors files."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wizardcoder_jax.arch import ArchConfig
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.hf.mapping import BUFFERS, TIED_HEAD, Row, rows
from wizardcoder_jax.model.transformer import Transformer, abstract_transformer
from wizardcoder_jax.progress import Progress
from wizardcoder_jax.sharding import Rules

INDEX_FILE = "model.safetensors.index.json"


class TensorSource(Protocol):
    """Named tensors under their Hugging Face names."""

    place: str  # where they come from, for messages

    def names(self) -> set[str]:
        """The names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one, without reading it."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        ...


class SafetensorsSource:
    """The tensors of a Hugging Face folder: model.safetensors, or shards with an index.

    Raises:
        InputError: no such files, or one is truncated or corrupt.
    """

    def __init__(self, folder: str) -> None:
        self.place = folder
        self._files: dict[str, Any] = {}
        for file in self._shards(folder):
            try:
                opened = safe_open(file, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise InputError(f"{file}: truncated or not a safetensors file ({error}); fetch it again") from error
            self._files.update(dict.fromkeys(opened.keys(), opened))

    @staticmethod
    def _shards(folder: str) -> list[str]:
        index = os.path.join(folder, INDEX_FILE)
        if os.path.exists(index):
            try:
                weight_map = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
                names = sorted(set(weight_map.values()))
                files = [os.path.join(folder, name) for name in names]
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise InputError(f"{index}: not an index of safetensors files ({error})") from error
        else:
            files = [os.path.join(folder, "model.safetensors")]
        for file in files:
            if not os.path.exists(file):
                raise InputError(f"{file} is missing; a model folder holds model.safetensors or all shards of its index")
        return files

    def names(self) -> set[str]:
        """See TensorSource."""
        return set(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """See TensorSource."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """See TensorSource."""
        return self._files[name].get_tensor(name)


def parameter(model: Transformer, path: str) -> Any:
    """The nnx.Param of `model` at a dotted path, e.g. "blocks.mlp.up.kernel"."""
    found: Any = model
    for name in path.split("."):
        found = getattr(found, name)
    return found


def import_weights(
    source: TensorSource, arch: ArchConfig, rules: Rules, mesh: Mesh, dtype: jnp.dtype | None = None
) -> Transformer:
    """A model with the weights of `source`, each put where the rules say as soon as it is read.

    Args:
        source: tensors under their HF names.
        arch: the architecture they are of.
        rules: how tensors are split over the mesh.
        mesh: the devices.
        dtype: of the weights; None keeps the source's.

    Raises:
        InputError: a tensor is missing, surplus or of a wrong shape (named).
    """
    model = abstract_transformer(arch, rules)
    _check_names(source, arch, model)
    mesh_shape = dict(mesh.shape)
    with Progress("load weights", len(rows(arch)), "tensor") as progress:
        for row in rows(arch):
            params = [parameter(model, path) for path in row.ours]
            for param, array in zip(params, _read_row(source, row, arch, [p.shape for p in params]), strict=True):
                sharding = NamedSharding(mesh, rules.spec(mesh_shape, array.shape, param.axes))
                held = array.astype(dtype or array.dtype)
                param.set_value(jax.make_array_from_callback(held.shape, sharding, lambda index, held=held: held[index]))
            progress.update()
    return model


def _layer_shapes(row: Row, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [shape[1:] if row.per_layer else shape for shape in shapes]


def _hf_names(row: Row, arch: ArchConfig) -> list[str]:
    return [row.hf.format(i=i) for i in range(arch.num_layers)] if row.per_layer else [row.hf]


def _check_names(source: TensorSource, arch: ArchConfig, model: Transformer) -> None:
    left = {name for name in source.names() if not name.endswith(BUFFERS)}
    if arch.tie_embeddings:
        left.discard(TIED_HEAD)
    for row in rows(arch):
        shapes = _layer_shapes(row, [parameter(model, path).shape for path in row.ours])
        expected = row.pattern.hf_shape(shapes, arch)
        for name in _hf_names(row, arch):
            if name not in left:
                raise InputError(f"{source.place}: the tensor {name} is missing")
            if source.shape(name) != expected:
                raise InputError(f"{source.place}: {name} has shape {list(source.shape(name))}, expected {list(expected)}")
            left.remove(name)
    if left:
        raise InputError(f"{source.place}: {len(left)} tensors belong to no parameter, e.g. {min(left)}")


def _read_row(source: TensorSource, row: Row, arch: ArchConfig, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    layer_shapes = _layer_shapes(row, shapes)
    if not row.per_layer:
        return row.pattern.to_ours(source.read(row.hf), layer_shapes)
    stacked: list[np.ndarray] = []
    for i, name in enumerate(_hf_names(row, arch)):
        parts = row.pattern.to_ours(source.read(name), layer_shapes)
        stacked = stacked or [np.empty(shape, part.dtype) for shape, part in zip(shapes, parts, strict=True)]
        for whole, part in zip(stacked, parts, strict=True):
            whole[i] = part
    return stacked


def hf_tensors(model: Transformer, dtype: jnp.dtype | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, tensor) of every Hugging Face tensor of `model`, in `dtype` (None: as held)."""
    for row in rows(model.arch):
        arrays = [np.asarray(parameter(model, path)[...]) for path in row.ours]
        for i, name in enumerate(_hf_names(row, model.arch)):
            parts = [array[i] if row.per_layer else array for array in arrays]
            tensor = row.pattern.to_hf(parts, model.arch)
            yield name, np.ascontiguousarray(tensor.astype(dtype or tensor.dtype))


def save_safetensors(model: Transformer, folder: Path, dtype: jnp.dtype | None, max_shard_bytes: int) -> None:
    """Writes the weights into `folder`: one file, or numbered shards with an index where they exceed `max_shard_bytes`."""
    shards: list[list[str]] = []
    weights_bytes, shard, shard_bytes = 0, {}, 0

    def flush() -> None:
        save_file(shard, folder / f"{len(shards)}.part", metadata={"format": "pt"})
        shards.append(list(shard))
        shard.clear()

    for name, tensor in hf_tensors(model, dtype):
        if shard and shard_bytes + tensor.nbytes > max_shard_bytes:
            flush()
            shard_bytes = 0
        shard[name] = tensor
        shard_bytes += tensor.nbytes
        weights_bytes += tensor.nbytes
    flush()
    if len(shards) == 1:
        shutil.move(folder / "0.part", folder / "model.safetensors")
        return
    weight_map = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        shutil.move(folder / f"{i}.part", folder / file)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": weights_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2), encoding="utf-8")
