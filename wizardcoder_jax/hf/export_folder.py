"""Export of a model to a Hugging Face folder, tensor by tensor. The weights may be spread over many hosts."""

import contextlib
import functools
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
    """Parse a size like 5GB, 500MB or 123 into bytes.

    Raises:
        InputError: the size does not have this form.
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
    extra_files: Mapping[str, str] | None = None,
) -> None:
    """Write a Hugging Face folder that transformers can load.

    The folder is renamed to `output` once it is complete. Object stores cannot rename; there, config.json is written last.
    Every process of the run must call this function and writes some of the shards, so `output` must be on shared storage.

    Args:
        weights: the model, and the checksums of its tensors if they are known.
        tokenizer: the model's tokenizer, which is exported too.
        output: path of the folder, local or gs://; an existing folder is replaced.
        dtype: dtype of the exported weights; None keeps the model's dtypes.
        max_shard_bytes: maximum size of a safetensors file in bytes.
        extra_files: more files to write, name -> content.

    Raises:
        InputError: the folder cannot be written (an existing folder is left unchanged), or a tensor is damaged.
    """
    arch = weights.model.arch
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    known = {name: i for name, i in ids.items() if i is not None}
    config = {**write_config(arch, str(jnp.dtype(dtype or weights.model.tokens.dtype))), **known}
    with _replacing(output) as folder:
        checksums = _write_shards(weights, folder, dtype, max_shard_bytes)
        if is_main_process():
            files = {**tokenizer.to_files(), **(extra_files or {})}
            files[CHECKSUM_FILE] = _json({"algorithm": "xxh3_128", "tensors": checksums})
            files["generation_config.json"] = _json({**known, "do_sample": False})
            files["config.json"] = _json(config)
            for name, text in files.items():
                with _create(folder, name) as file:
                    file.write(text.encode("utf-8"))


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


@contextlib.contextmanager
def _replacing(output: str) -> Iterator[str]:
    """Yield a folder to write to. It replaces `output` once all processes have left the block without an error."""
    if is_remote(output):
        if is_main_process():
            remote_path(os.path.join(output, "config.json")).unlink(missing_ok=True)  # without it, the folder is incomplete
        barrier("export begins")
        yield output
        return
    target = Path(os.path.abspath(output))
    temporary, old = (target.with_name(f".{target.name}.{kind}") for kind in ("tmp", "old"))
    try:
        if is_main_process():
            shutil.rmtree(temporary, ignore_errors=True)  # left by an export that was killed
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
        raise InputError(f"{output} cannot be written: {error.strerror or error}; its previous content is unchanged") from error
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
    """Write this process's shards and the index; return the checksums of all tensors."""
    model, checksums = weights.model, {}
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
                    checksums[name] = checksum(tensor)
                    _check(name, checksums[name], weights.checksums)
                    if writer is not None:
                        writer.write(name, tensor)
                    progress.update(tensor.nbytes)
    return checksums


def _check(name: str, actual: str, imported: Checksums | None) -> None:
    """Raise InputError if a tensor differs from the imported one, unless the dtype changed or no checksum is known."""
    expected = (imported or {}).get(name, actual)
    if expected != actual and expected.split(":")[0] == actual.split(":")[0]:
        raise InputError(
            f"the checkpoint is damaged: {name} has checksum {actual}, but had {expected} at import; convert the model again"
        )


def hf_tensors(model: Transformer, dtype: jnp.dtype | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, tensor) for every Hugging Face tensor of `model`, in `dtype` (None: the stored dtype).

    Tensors are gathered one at a time, so every process of the run must iterate over all of them.
    """
    for name, destination in tensor_destinations(model.arch).items():
        arrays = [get_param(model, path)[...] for path in destination.mapping.params]
        mapping = destination.mapping
        gather = _gather_program(mapping, model.arch, dtype, arrays[0].sharding)
        tensor = gather(arrays, 0 if destination.layer is None else destination.layer)
        yield name, np.asarray(tensor.addressable_data(0)).view(dtype or arrays[0].dtype)


@functools.cache
def _gather_program(
    mapping: TensorMapping, arch: ArchConfig, dtype: jnp.dtype | None, sharding: jax.sharding.Sharding
) -> Callable[..., jax.Array]:
    """Compile a function that returns the bits of one Hugging Face tensor, replicated on every device."""

    def gather(arrays: list[jax.Array], layer: jax.Array) -> jax.Array:
        bits = [as_bits(array) for array in arrays]
        parts = [jax.lax.dynamic_index_in_dim(a, layer, 0, keepdims=False) for a in bits] if mapping.per_layer else bits
        if dtype is not None and dtype != arrays[0].dtype:
            parts = [as_bits(jax.lax.bitcast_convert_type(part, arrays[0].dtype).astype(dtype)) for part in parts]
        return mapping.pattern.to_hf(parts, arch)

    replicated = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
    return jax.jit(gather, out_shardings=replicated)
