"""Files and folders, local or on gs://. Writes are atomic."""

import contextlib
import glob
import gzip
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.library_environment import use_gcsfs_for_gs

_HUB_DATASETS = "hf://datasets/"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is on an object store (gs://...) rather than local."""
    return "://" in os.fspath(path)


def remote_path(name: str) -> Any:
    """Return the etils path of an object on gs://.

    Raises:
        InputError: the path is not on gs://.
    """
    from etils import epath

    use_gcsfs_for_gs()
    if not name.startswith("gs://"):
        raise InputError(f"{name} is neither a local path nor on gs://; other stores are not supported")
    return epath.Path(name)


def exists(path: str | os.PathLike[str]) -> bool:
    """Return whether a local or gs:// file or folder exists.

    Raises:
        InputError: the object store cannot be reached.
    """
    name = os.fspath(path)
    if not is_remote(name):
        return os.path.exists(name)
    try:
        return remote_path(name).exists()
    except InputError:
        raise
    except Exception as error:  # gcsfs raises its own exceptions and those of google.auth and aiohttp
        raise InputError(f"cannot reach {name}: {error}; check the bucket's name and your credentials") from error


def remove_folder(path: str | os.PathLike[str]) -> None:
    """Remove a local or gs:// folder and its contents. Does nothing if the folder does not exist."""
    name = os.fspath(path)
    if not is_remote(name):
        shutil.rmtree(name, ignore_errors=True)
    elif exists(name):
        remote_path(name).rmtree()


def ensure_dir(path: str | os.PathLike[str]) -> None:
    """Create a folder and its parents if they do not exist.

    Raises:
        InputError: the folder cannot be created, or cannot be written to.
    """
    name = os.fspath(path)
    if is_remote(name):
        return
    try:
        os.makedirs(name, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder {name}: {error.strerror}; choose another output path") from error
    if not os.access(name, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to the folder {name}; choose another output path")


def expand_paths(patterns: Sequence[str]) -> list[str]:
    """Return the files that match paths or globs, sorted within each pattern, without duplicates.

    A file of a dataset on the Hugging Face hub, hf://datasets/ORG/NAME/FILE, is downloaded to the hub's local cache.

    Raises:
        InputError: no file matches a pattern, or the download fails.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if pattern.startswith(_HUB_DATASETS):
            names = [_download(pattern)]
        elif is_remote(pattern):
            parent, _, name = pattern.rpartition("/")
            names = sorted(os.fspath(p) for p in remote_path(parent).glob(name))
        else:
            names = sorted(glob.glob(pattern)) or ([pattern] if os.path.exists(pattern) else [])
        if not names:
            raise InputError(f"no file matches {pattern}")
        found.update(dict.fromkeys(names))
    return list(found)


def _download(address: str) -> str:
    import huggingface_hub

    org, name, file = (*address.removeprefix(_HUB_DATASETS).split("/", 2), "", "")[:3]
    try:
        return huggingface_hub.hf_hub_download(f"{org}/{name}", file, repo_type="dataset")
    except Exception as error:  # the hub's client raises its own exceptions, those of httpx, and OSErrors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"cannot download {address} from the hub ({reason}); on a machine with network, run: "
            f"hf download {org}/{name} {file} --repo-type dataset --local-dir data  (and pass the file as --data)"
        ) from error


def open_bytes(path: str | os.PathLike[str], unzip: bool = True) -> IO[bytes]:
    """Open a local or gs:// file for reading. With `unzip`, a file whose name ends in .gz is decompressed.

    Raises:
        InputError: the file does not exist or cannot be read.
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
    unzipped.myfileobj = raw  # type: ignore[assignment]  # GzipFile closes this attribute, but not its fileobj argument
    return unzipped  # type: ignore[return-value]


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a local or gs:// file.

    Raises:
        InputError: the file cannot be read, or is not UTF-8.
    """
    with open_bytes(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{os.fspath(path)}: not UTF-8 at byte {error.start}") from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object in a local or gs:// JSON file.

    Raises:
        InputError: the file cannot be read, or does not contain a JSON object.
    """
    value = parse_json(os.fspath(path), read_text(path))
    if not isinstance(value, dict):
        raise InputError(f"{os.fspath(path)}: expected a JSON object, found {type(value).__name__}")
    return value


def parse_json(place: str, text: str) -> Any:
    """Parse JSON that was read from `place`, a file or "FILE:LINE".

    Raises:
        InputError: the text is malformed. The message names the place, and the line if the text has several lines.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # JSONDecodeError; ValueError for a number with too many digits
        where = f"{place}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) and error.lineno > 1 else place
        raise InputError(f"{where}: malformed JSON ({getattr(error, 'msg', error)}); fix or remove it") from error


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file that becomes visible under its name only once it is complete. After an error, the previous file is intact.

    Raises:
        InputError: the path cannot be written.
    """
    name = os.fspath(path)
    if is_remote(name):  # an object becomes visible only after its upload, so this is atomic too
        buffer = io.BytesIO()
        yield buffer
        remote_path(name).write_bytes(buffer.getvalue())
        return
    target = Path(name)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    ensure_dir(target.parent)
    if target.is_dir():
        raise InputError(f"{target} is a folder; choose another output path")
    if target.exists() and not target.is_file():  # e.g. /dev/null, which os.replace would replace
        raise InputError(f"{target} is not a regular file; choose another output path")
    try:
        with _create(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _create(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except OSError as error:
        raise InputError(f"cannot write to {path.parent}: {error.strerror}; choose another output path") from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file as UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
