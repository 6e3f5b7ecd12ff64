"""A cache of arrays on disk, keyed by a hash of everything they depend on. Cached arrays are memory-mapped."""

import contextlib
import dataclasses
import fcntl
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import ensure_dir, is_remote, open_bytes, write_json

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedArrays:
    """Named arrays, and metadata about them that can be stored as JSON."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


def load_or_build(cache_dir: str, key: Mapping[str, Any], build: Callable[[], CachedArrays]) -> tuple[CachedArrays, str]:
    """Return the arrays of `key` from the cache, or build and cache them; also return the hash of the key.

    If several processes need the same arrays, one builds them while the others wait. Entries are either complete or absent.
    Their arrays are verified with a checksum when they are opened (xxh3, several GB/s), and rebuilt if they are damaged.

    Args:
        cache_dir: a local folder; the arrays are stored in cache_dir/prepared/HASH.
        key: everything the arrays depend on.
        build: builds the arrays if they are not cached.

    Raises:
        InputError: the cache cannot be written, or `build` raises this error.
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
        cached = _load(folder)  # another process may have built the entry in the meantime
        if cached is None:
            _build(folder, key, build)
            cached = _load(folder)
    if cached is None:
        raise InputError(f"{folder} could not be read back correctly after it was written; choose another --cache-dir")
    return cached, fingerprint


def hash_file(file: str) -> str:
    """Return a hash of the file's raw bytes; compressed files are not decompressed.

    Raises:
        InputError: the file cannot be read.
    """
    digest = xxhash.xxh3_128()
    try:
        with open_bytes(file, unzip=False) as content:
            while block := content.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{file} cannot be read completely: {error}") from error
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache entry; the operating system releases it even if the process is killed."""
    name = folder.with_suffix(".lock")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(name.open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("data: waiting for another process that is preparing the same data")
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise InputError(f"cannot lock {name}: {error.strerror}; choose another --cache-dir") from error
        yield


def _load(folder: Path) -> CachedArrays | None:
    """Return the memory-mapped entry in `folder`, or None if it is absent or damaged."""
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


def _build(folder: Path, key: Mapping[str, Any], build: Callable[[], CachedArrays]) -> None:
    """Build the entry in `folder`; the caller must hold its lock."""
    if folder.exists():
        logger.warning(f"{folder} is incomplete or damaged and will be rebuilt")
    for leftover in folder.parent.glob(f".{folder.name}.*"):  # incomplete folders of killed processes
        shutil.rmtree(leftover, ignore_errors=True)
    built = build()
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(temporary, key, built)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, key: Mapping[str, Any], built: CachedArrays) -> None:
    for name, array in built.arrays.items():
        np.save(folder / f"{name}.npy", array)
    hashes = {name: _hash(array) for name, array in built.arrays.items()}
    write_json(folder / "manifest.json", {"key": key, "facts": built.facts, "xxh3": hashes})
    folder.chmod(0o755)  # mkdtemp uses 0700, which other users of a shared cache could not read
