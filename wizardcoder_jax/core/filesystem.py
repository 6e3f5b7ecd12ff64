"""Records in, records out: JSONL, JSON arrays and parquet, plain or gzipped, local or gs://; writes are atomic."""

import contextlib
import glob
import gzip
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.library_environment import use_gcsfs_for_gs

_HUB_DATASETS = "hf://datasets/"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether `path` names an object store (gs://...) and not a local file."""
    return "://" in os.fspath(path)


def remote_path(name: str) -> Any:
    """The object-store path `name`, an etils path.

    Raises:
        InputError: it is of a kind that cannot be reached.
    """
    from etils import epath

    use_gcsfs_for_gs()
    if not name.startswith("gs://"):
        raise InputError(f"{name}: only gs:// and local paths are read and written")
    return epath.Path(name)


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a local or gs:// file or folder of that name.

    Raises:
        InputError: the object store does not answer.
    """
    name = os.fspath(path)
    if not is_remote(name):
        return os.path.exists(name)
    try:
        return remote_path(name).exists()
    except InputError:
        raise
    except Exception as error:  # gcsfs raises its own, google.auth's and aiohttp's
        raise InputError(f"cannot reach {name}: {error}; are the bucket's name and your credentials right?") from error


def remove_folder(path: str | os.PathLike[str]) -> None:
    """Removes a local or gs:// folder with all that is in it, if it is there."""
    name = os.fspath(path)
    if not is_remote(name):
        shutil.rmtree(name, ignore_errors=True)
    elif exists(name):
        remote_path(name).rmtree()


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a local or gs:// file.

    Raises:
        InputError: there is no such file, or it is not UTF-8.
    """
    with open_bytes(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{os.fspath(path)}: not UTF-8 at byte {error.start}") from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a local or gs:// JSON file.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    value = _parse(os.fspath(path), read_text(path))
    if not isinstance(value, dict):
        raise InputError(f"{os.fspath(path)}: expected a JSON object, found {type(value).__name__}")
    return value


def open_bytes(path: str | os.PathLike[str], unzip: bool = True) -> IO[bytes]:
    """Opens a local or gs:// file for reading; with `unzip` a `.gz` is decompressed.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    name = os.fspath(path)
    try:
        if is_remote(name):
            raw: IO[bytes] = remote_path(name).open("rb")
        else:
            raw = open(name, "rb")  # noqa: SIM115 (the caller closes it)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from error
    if not (unzip and name.endswith(".gz")):
        return raw
    unzipped = gzip.GzipFile(fileobj=raw)
    unzipped.myfileobj = raw  # type: ignore[assignment]  # GzipFile closes this with itself, and its fileobj argument not
    return unzipped  # type: ignore[return-value]


def expand_paths(patterns: Sequence[str]) -> list[str]:
    """The files that `patterns` (paths or globs) name, sorted within each pattern, without repeats.

    A file of a dataset on the Hugging Face hub, hf://datasets/ORG/NAME/FILE, is fetched into the hub's local cache.

    Raises:
        InputError: a pattern names no file, or the hub does not give it.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if pattern.startswith(_HUB_DATASETS):
            names = [_fetch(pattern)]
        elif is_remote(pattern):
            parent, _, name = pattern.rpartition("/")
            names = sorted(os.fspath(p) for p in remote_path(parent).glob(name))
        else:
            names = sorted(glob.glob(pattern)) or ([pattern] if os.path.exists(pattern) else [])
        if not names:
            raise InputError(f"no file matches {pattern}")
        found.update(dict.fromkeys(names))
    return list(found)


def _fetch(address: str) -> str:
    import huggingface_hub

    org, name, file = (*address.removeprefix(_HUB_DATASETS).split("/", 2), "", "")[:3]
    try:
        return huggingface_hub.hf_hub_download(f"{org}/{name}", file, repo_type="dataset")
    except Exception as error:  # the hub client raises its own, httpx's and OSErrors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"the hub does not give {address} ({reason}); fetch it where there is a network with: "
            f"hf download {org}/{name} {file} --repo-type dataset --local-dir data  (and name it with --data)"
        ) from error


def read_records(path: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (place, record) for each object of a JSONL, JSON-array or parquet file; place is "FILE:LINE".

    JSONL and parquet are read as a stream, a JSON array whole.

    Raises:
        InputError: the file is missing, malformed, or holds something other than objects (file and line named).
    """
    name = os.fspath(path)
    is_parquet = name.removesuffix(".gz").endswith(".parquet")
    with open_bytes(path) as file:
        for place, entry in (_parquet_entries if is_parquet else _json_entries)(name, file):
            if not isinstance(entry, dict):
                raise InputError(f"{place}: expected a JSON object, found {type(entry).__name__}")
            yield place, entry


def _json_entries(name: str, file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    num_bytes, is_first = 0, True
    # Split at "\n" alone: str.splitlines also cuts at U+2028 and friends, which JSON strings may hold.
    for number, line in enumerate(_lines(name, file), start=1):
        text = _utf8(name, line, num_bytes)
        num_bytes += len(line)
        if number == 1:
            text = text.removeprefix("\ufeff")  # the mark with which some editors begin a file
        if not text.strip():
            continue
        if is_first and text.lstrip().startswith("["):
            rest = b"".join(_lines(name, file))
            whole = "\n" * (number - 1) + text + _utf8(name, rest, num_bytes)  # so that an error names its line
            yield from ((f"{name}:[{i}]", entry) for i, entry in enumerate(_parse(name, whole)))
            return
        is_first = False
        yield f"{name}:{number}", _parse(f"{name}:{number}", text.removesuffix("\n"))


def _lines(name: str, file: IO[bytes]) -> Iterator[bytes]:
    try:
        yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name}: cannot be read whole: {error}") from error


def _utf8(name: str, content: bytes, offset: int) -> str:
    """The text of a part of a file that begins at `offset`."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 at byte {offset + error.start}") from error


def _parse(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # JSONDecodeError; ValueError: a number of too many digits
        where = f"{place}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) and error.lineno > 1 else place
        raise InputError(f"{where}: malformed JSON ({getattr(error, 'msg', error)}); fix or remove it") from error


def _parquet_entries(name: str, file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=1000):
            for record in batch.to_pylist():
                yield f"{name}:[{number}]", record
                number += 1
    except (pyarrow.ArrowException, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name}: not a readable parquet file ({error})") from error


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a file that appears under its name only once it is whole; an error leaves what stood there before.

    Raises:
        InputError: the place cannot be written.
    """
    name = os.fspath(path)
    if is_remote(name):  # an object store makes an object visible when its upload ends: atomic already
        buffer = io.BytesIO()
        yield buffer
        remote_path(name).write_bytes(buffer.getvalue())
        return
    target = Path(name)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    ensure_dir(target.parent)
    if target.is_dir():
        raise InputError(f"{target} is a folder; choose another output path")
    if target.exists() and not target.is_file():  # /dev/null would be replaced
        raise InputError(f"{target} is no ordinary file; choose another output path")
    try:
        with _opened(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except OSError as error:
        raise InputError(f"cannot write {path.parent}: {error.strerror}; choose another output path") from error


def ensure_dir(path: str | os.PathLike[str]) -> None:
    """Makes the folder (and its parents) where it is missing.

    Raises:
        InputError: it cannot be made or written.
    """
    name = os.fspath(path)
    if is_remote(name):
        return
    try:
        os.makedirs(name, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {name}: {error.strerror}; choose another output path") from error
    if not os.access(name, os.W_OK | os.X_OK):
        raise InputError(f"the folder {name} cannot be written; choose another output path")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: str | os.PathLike[str], records: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object a line, atomically; gzipped where the name ends in `.gz`."""
    with atomic_write(path) as file:
        compressed = gzip.GzipFile(fileobj=file, mode="wb", mtime=0) if os.fspath(path).endswith(".gz") else None
        with compressed or contextlib.nullcontext(file) as out:
            for record in records:
                out.write(json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n")
