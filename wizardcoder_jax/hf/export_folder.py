"""A model out: a Hugging Face folder, written tensor by tensor from arrays that may be spread over many hosts."""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from wizardcoder_jax.core.distributed import barrier, is_main_process
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import ensure_dir, is_remote, remote_path
from wizardcoder_jax.core.progress import Progress
from wizardcoder_jax.hf.import_weights import (
    CHECKSUM_FILE,
    Checksums,
    Weights,
    as_bits,
    checksum,
    get_param,
    hf_shapes,
    tensor_destinations,
)
from wizardcoder_jax.hf.safetensors_io import INDEX_FILE, ShardWriter, build_index, plan_shards
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import write_config
from wizardcoder_jax.models.families.weight_patterns import TensorMapping
from wizardcoder_jax.models.transformer import Transformer


def parse_size(size: str) -> int:
    """Bytes of a size like 5GB, 500MB or 123.

    Raises:
        InputError: it is not one.
    """
    units = {"GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1, "": 1}
    number = size.upper().rstrip("GMKB")
    unit = size.upper()[len(number) :]
    if unit not in units or not number.isdecimal() or int(number) < 1:
        raise InputError(f"size {size!r} is not of the form 5GB, 500MB or 123")
    return int(number) * units[unit]


def export_folder(
    weights: Weights,
    tokenizer: Tokenizer,
    output: str,
    dtype: jnp.dtype | None,
    max_shard_bytes: int,
    more_files: Mapping[str, str] | None = None,
) -> None:
    """Writes a Hugging Face folder that transformers loads; it appears under its name only once it is whole.

    On an object store, which cannot rename, its config.json appears last. Every process of the run calls this; each writes
    some of the shards, into a folder that all of them see.

    Args:
        weights: the model, and the checksums that its tensors have where they are known.
        tokenizer: written beside it.
        output: the folder, local or gs://, replaced if it exists.
        dtype: of the weights; None keeps the model's.
        max_shard_bytes: of one safetensors file.
        more_files: other files of the folder, name -> text.

    Raises:
        InputError: the folder cannot be written (an earlier one stays as it was), or a tensor is damaged.
    """
    arch = weights.model.arch
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    known = {name: i for name, i in ids.items() if i is not None}
    config = {**write_config(arch, str(jnp.dtype(dtype or weights.model.tokens.dtype))), **known}
    with _replacing(output) as folder:
        found = _write_shards(weights, folder, dtype, max_shard_bytes)
        if is_main_process():
            files = {**tokenizer.to_files(), **(more_files or {})}
            files[CHECKSUM_FILE] = _json({"algorithm": "xxh3_128", "tensors": found})
            files["generation_config.json"] = _json({**known, "do_sample": False})
            files["config.json"] = _json(config)
            for name, text in files.items():
                with _create(folder, name) as file:
                    file.write(text.encode("utf-8"))


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


@contextlib.contextmanager
def _replacing(output: str) -> Iterator[str]:
    """A folder to write into, which takes the place of `output` once every process has left the block without an error."""
    if is_remote(output):
        if is_main_process():
            remote_path(os.path.join(output, "config.json")).unlink(missing_ok=True)  # from now on it is not whole
        barrier("export begins")
        yield output
        return
    target = Path(os.path.abspath(output))
    temporary, old = (target.with_name(f".{target.name}.{kind}") for kind in ("tmp", "old"))
    try:
        if is_main_process():
            shutil.rmtree(temporary, ignore_errors=True)  # of an export that was killed
            ensure_dir(temporary)
        barrier("export begins")
        yield os.fspath(temporary)
        barrier("export is written")
        if is_main_process():
            if target.exists():
                target.rename(old)
            temporary.rename(target)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror or error}; what stood there is as it was") from error
    finally:
        if is_main_process():
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _create(folder: str, name: str) -> Iterator[IO[bytes]]:
    path = os.path.join(folder, name)
    with remote_path(path).open("wb") if is_remote(path) else open(path, "wb") as file:
        yield file
        if not is_remote(path):
            file.flush()
            os.fsync(file.fileno())


def _write_shards(weights: Weights, folder: str, dtype: jnp.dtype | None, max_shard_bytes: int) -> Checksums:
    """Writes this process's shards, and the index; returns the checksums of all tensors."""
    model, found = weights.model, {}
    shapes = hf_shapes(model.arch, model)
    destinations = tensor_destinations(model.arch)
    dtypes = {name: np.dtype(dtype or get_param(model, to.mapping.params[0]).dtype) for name, to in destinations.items()}
    shards = plan_shards({name: (dtypes[name], shapes[name]) for name in dtypes}, max_shard_bytes)
    index = build_index(shards)
    if len(shards) > 1 and is_main_process():
        with _create(folder, INDEX_FILE) as file:
            file.write(_json(index).encode())
    tensors = hf_tensors(model, dtype)
    with Progress("export weights", index["metadata"]["total_size"], "B") as progress:
        for i, shard in enumerate(shards):
            is_mine = i % jax.process_count() == jax.process_index()
            with _create(folder, shard.file) if is_mine else contextlib.nullcontext() as file:
                writer = ShardWriter(file, shard) if file is not None else None
                for name, tensor in itertools.islice(tensors, len(shard.tensors)):
                    found[name] = checksum(tensor)
                    _check(name, found[name], weights.checksums)
                    if writer is not None:
                        writer.write(name, tensor)
                    progress.update(tensor.nbytes)
    return found


def _check(name: str, found: str, expected: Checksums | None) -> None:
    """Compares with the tensor as it was imported, where that is known and has not been converted since."""
    before = (expected or {}).get(name, found)
    if before != found and before.split(":")[0] == found.split(":")[0]:
        raise InputError(
            f"the checkpoint is damaged: {name} has checksum {found}, it was imported with {before}; convert again"
        )


def hf_tensors(model: Transformer, dtype: jnp.dtype | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, tensor) of every Hugging Face tensor of `model`, in `dtype` (None: as held).

    Tensors are gathered one at a time; every process of the run must take all of them.
    """
    gather: dict[TensorMapping, Callable[..., jax.Array]] = {}
    for name, place in tensor_destinations(model.arch).items():
        arrays = [get_param(model, path)[...] for path in place.mapping.params]
        if place.mapping not in gather:
            gather[place.mapping] = _gatherer(place.mapping, model.arch, dtype, arrays[0].sharding)
        tensor = gather[place.mapping](arrays, 0 if place.layer is None else place.layer)
        yield name, np.asarray(tensor.addressable_data(0)).view(dtype or arrays[0].dtype)


def _gatherer(
    row: TensorMapping, arch: ArchConfig, dtype: jnp.dtype | None, held: jax.sharding.Sharding
) -> Callable[..., jax.Array]:
    """The program that makes one tensor of `row` (its bits), whole on every device."""

    def gather(arrays: list[jax.Array], layer: jax.Array) -> jax.Array:
        bits = [as_bits(array) for array in arrays]
        parts = [jax.lax.dynamic_index_in_dim(a, layer, 0, keepdims=False) for a in bits] if row.per_layer else bits
        if dtype is not None and dtype != arrays[0].dtype:
            parts = [as_bits(jax.lax.bitcast_convert_type(part, arrays[0].dtype).astype(dtype)) for part in parts]
        return row.pattern.to_hf(parts, arch)

    whole = NamedSharding(held.mesh, PartitionSpec()) if isinstance(held, NamedSharding) else None
    return jax.jit(gather, out_shardings=whole)
