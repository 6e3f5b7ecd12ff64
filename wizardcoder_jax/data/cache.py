"""Packed data on disk, under a hash of everything it depends on; memory-mapped when it is there already."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wizardcoder_jax import prompts
from wizardcoder_jax.data.examples import Example, read_examples
from wizardcoder_jax.data.packing import PackedRows, TokenisedExample, pack
from wizardcoder_jax.data.tokenizer import Tokenizer
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.files import ensure_dir, is_remote, open_bytes, write_json
from wizardcoder_jax.progress import Progress

FORMAT_VERSION = 1  # raise it whenever the same files would be prepared differently
ARRAYS = tuple(field.name for field in dataclasses.fields(PackedRows))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What went into the rows and what did not."""

    examples: int  # read from the files
    dropped: int  # prompt alone fills max_length: nothing to learn
    truncated: int  # response cut at max_length, without its end token
    rows: int
    tokens: int  # slots that hold a token
    supervised_tokens: int  # slots with a loss weight
    fill: float  # tokens / (rows * max_length)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedDataset(PackedRows):
    """Packed rows and how they came about."""

    counts: Counts


def prepare(files: Sequence[str], tokenizer: Tokenizer, max_length: int, cache_dir: str) -> PackedDataset:
    """The examples of `files`, packed: from the cache, or tokenised now and kept there.

    A warm cache imports neither seqio nor TensorFlow. Several processes may prepare the same data: one works, the others
    wait for it. A damaged cache is made anew.

    Args:
        files: instruction files (names, not globs).
        tokenizer: of the model to train.
        max_length: tokens a row; longer examples lose the end of their response.
        cache_dir: local folder; the rows go to cache_dir/packed/HASH.

    Raises:
        InputError: a file is missing or malformed, nothing is left to learn from, or the cache cannot be written.
    """
    if is_remote(cache_dir):
        raise InputError(f"the cache must be a local folder, not {cache_dir}; choose another --cache-dir")
    key = cache_key(files, tokenizer, max_length)
    folder = Path(cache_dir) / "packed" / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    dataset = _load(folder)
    if dataset is not None:
        return dataset
    ensure_dir(folder.parent)
    with _locked(folder):
        dataset = _load(folder)  # another process may have made it while this one waited
        if dataset is None:
            _build(folder, key, files, tokenizer, max_length)
            dataset = _load(folder)
    if dataset is None:
        raise InputError(f"{folder} is damaged right after it was written; choose another --cache-dir")
    return dataset


def cache_key(files: Sequence[str], tokenizer: Tokenizer, max_length: int) -> dict[str, Any]:
    """Everything the packed rows depend on; file names do not matter, contents and order do."""
    return {
        "format_version": FORMAT_VERSION,
        "files_sha256": [_sha256(file) for file in files],
        "tokenizer": tokenizer.fingerprint,
        "eos_id": tokenizer.eos_id,
        "template": prompts.wizardcoder(prompts.with_input("{instruction}", "{input}")),
        "max_length": max_length,
    }


def _sha256(file: str) -> str:
    try:
        with open_bytes(file) as content:
            return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read whole: {error}") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of one cache folder; the system releases it when the process ends, however it ends."""
    name = folder.with_suffix(".lock")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(name.open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _note("waiting for another process that prepares the same data")
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise InputError(f"cannot lock {name}: {error.strerror}; choose another --cache-dir") from error
        yield


def _load(folder: Path) -> PackedDataset | None:
    """The dataset in `folder`, memory-mapped; None where there is none, or not a whole one."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in ARRAYS}
        if any(zlib.crc32(arrays[name].data) != manifest["crc32"][name] for name in ARRAYS):
            return None
        return PackedDataset(**arrays, counts=Counts(**manifest["counts"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _build(folder: Path, key: dict[str, Any], files: Sequence[str], tokenizer: Tokenizer, max_length: int) -> None:
    """Makes `folder`; it appears whole or not at all. Needs the folder's lock."""
    if folder.exists():
        _note(f"{folder} is incomplete or damaged and is made anew")
    for leftover in folder.parent.glob(f".{folder.name}.*"):  # of processes that were killed
        shutil.rmtree(leftover, ignore_errors=True)
    examples = read_examples(files)
    tokenised, truncated = _tokenise(examples, tokenizer, max_length)
    rows = pack(tokenised, max_length)
    num_tokens = int(np.count_nonzero(rows.segment_ids))
    counts = Counts(
        examples=len(examples),
        dropped=len(examples) - len(tokenised),
        truncated=truncated,
        rows=rows.num_rows,
        tokens=num_tokens,
        supervised_tokens=int(np.count_nonzero(rows.weights)),
        fill=num_tokens / rows.tokens.size,
    )
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(temporary, rows, key, counts)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, rows: PackedRows, key: dict[str, Any], counts: Counts) -> None:
    crc32 = {}
    for name in ARRAYS:
        array = getattr(rows, name)
        np.save(folder / f"{name}.npy", array)
        crc32[name] = zlib.crc32(array.data)
    write_json(folder / "manifest.json", {"key": key, "counts": dataclasses.asdict(counts), "crc32": crc32})
    folder.chmod(0o755)  # a temporary folder's 0700 would shut others out of a shared cache


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: amid the imports of TensorFlow it aborts the process or gets lost."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread is ever interrupted
        yield
        return
    pending: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if pending:
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def _native_log_muted() -> Iterator[None]:
    """Sends what TensorFlow's C++ start-up writes past Python's sys.stderr to nowhere; errors still raise."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _tokenise(examples: Sequence[Example], tokenizer: Tokenizer, max_length: int) -> tuple[list[TokenisedExample], int]:
    """Tokenises, cuts at `max_length`, drops what has nothing left to learn; returns what is kept and how many were cut."""
    with _interrupts_deferred(), _native_log_muted():
        from wizardcoder_jax.data import tasks  # here, because it takes TensorFlow along

    kept: list[TokenisedExample] = []
    dropped: list[Example] = []
    truncated = 0
    with Progress("prepare", len(examples), "example") as progress:
        for i, (tokens, weights) in enumerate(tasks.tokenise(examples, tokenizer)):
            if weights[1:max_length].any():
                kept.append(TokenisedExample(example_id=i, tokens=tokens[:max_length], weights=weights[:max_length]))
                truncated += len(tokens) > max_length
            else:
                dropped.append(examples[i])
            progress.update()
    if not kept:
        raise InputError(
            f"every prompt is longer than max_length {max_length} allows (first: {dropped[0].place}); raise --max-length"
        )
    if dropped:
        _note(
            f"{len(dropped)} of {len(examples)} prompts fill max_length {max_length} and are dropped ({dropped[0].place} ...)"
        )
    if truncated:
        _note(f"{truncated} of {len(examples)} responses are cut at max_length {max_length}")
    return kept, truncated


def _note(message: str) -> None:
    print(f"data: {message}", file=sys.stderr, flush=True)
