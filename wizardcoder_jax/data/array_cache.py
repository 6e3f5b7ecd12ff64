"""Arrays on disk, under a hash of everything they depend on; memory-mapped when they are there already."""

import contextlib
import dataclasses
import fcntl
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import ensure_dir, is_remote, open_bytes, write_json
from wizardcoder_jax.data.notes import note


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedArrays:
    """Named arrays, and facts about them that JSON can hold."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


def load_or_build(cache_dir: str, key: Mapping[str, Any], make: Callable[[], CachedArrays]) -> tuple[CachedArrays, str]:
    """What `make` returns for `key`: from the cache, or made now and kept there; and the key's hash.

    Several processes may ask for the same: one works, the others wait for it. A damaged cache is made anew: everything is
    checked against a hash when it is opened (xxh3, several GB/s). A folder appears whole or not at all.

    Args:
        cache_dir: local folder; the arrays go to cache_dir/prepared/HASH.
        key: all that they depend on.
        make: makes them.

    Raises:
        InputError: the cache cannot be written, or `make` raises it.
    """
    if is_remote(cache_dir):
        raise InputError(f"the cache must be a local folder, not {cache_dir}; choose another --cache-dir")
    fingerprint = xxhash.xxh3_128_hexdigest(json.dumps(key, sort_keys=True).encode())
    folder = Path(cache_dir) / "prepared" / fingerprint
    cached = _load(folder)
    if cached is not None:
        return cached, fingerprint
    ensure_dir(folder.parent)
    with _locked(folder):
        cached = _load(folder)  # another process may have made it while this one waited
        if cached is None:
            _build(folder, key, make)
            cached = _load(folder)
    if cached is None:
        raise InputError(f"{folder} is damaged right after it was written; choose another --cache-dir")
    return cached, fingerprint


def hash_file(file: str) -> str:
    """A hash of the file's bytes as they are stored.

    Raises:
        InputError: it cannot be read.
    """
    digest = xxhash.xxh3_128()
    try:
        with open_bytes(file, unzip=False) as content:
            while block := content.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{file}: cannot be read whole: {error}") from error
    return digest.hexdigest()


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
                note("waiting for another process that prepares the same data")
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise InputError(f"cannot lock {name}: {error.strerror}; choose another --cache-dir") from error
        yield


def _load(folder: Path) -> CachedArrays | None:
    """What `folder` holds, memory-mapped; None where there is nothing, or not all of it."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in manifest["xxh3"]}
        if any(_hash(array) != manifest["xxh3"][name] for name, array in arrays.items()):
            return None
        return CachedArrays(arrays=arrays, facts=manifest["facts"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _hash(array: np.ndarray) -> str:
    return xxhash.xxh3_64_hexdigest(array.data)


def _build(folder: Path, key: Mapping[str, Any], make: Callable[[], CachedArrays]) -> None:
    """Makes `folder`; needs its lock."""
    if folder.exists():
        note(f"{folder} is incomplete or damaged and is made anew")
    for leftover in folder.parent.glob(f".{folder.name}.*"):  # of processes that were killed
        shutil.rmtree(leftover, ignore_errors=True)
    made = make()
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(temporary, key, made)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, key: Mapping[str, Any], made: CachedArrays) -> None:
    for name, array in made.arrays.items():
        np.save(folder / f"{name}.npy", array)
    hashes = {name: _hash(array) for name, array in made.arrays.items()}
    write_json(folder / "manifest.json", {"key": key, "facts": made.facts, "xxh3": hashes})
    folder.chmod(0o755)  # a temporary folder's 0700 would shut others out of a shared cache
