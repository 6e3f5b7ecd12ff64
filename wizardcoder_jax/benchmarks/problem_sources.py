"""Locates problem files: in an installed package, then in WIZARDCODER_DATA, then on the network."""

import hashlib
import importlib.metadata
import importlib.util
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from wizardcoder_jax.config import default_cache_dir
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.file_hash import file_sha256
from wizardcoder_jax.core.filesystem import atomic_write

_DOWNLOAD_TIMEOUT_S = 30
_HUB = "hf://datasets/"


def find_in_package(module: str, distribution: str, file: str) -> tuple[str, str] | None:
    """Return the path of a file in an installed package and the package's name and version; None if there is no such file."""
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, file)
        if path.is_file():
            return str(path), f"{distribution} {importlib.metadata.version(distribution)}"
    return None


def find_in_data_dir(files: Sequence[str]) -> tuple[str, str] | None:
    """Return the path and name of the first of `files` that exists in the folder WIZARDCODER_DATA; None if none exists."""
    data_dir = os.environ.get("WIZARDCODER_DATA")
    for file in files if data_dir else ():
        path = Path(str(data_dir), file)
        if path.is_file():
            return str(path), path.name
    return None


def find_problem_file(name: str, files: Sequence[str], address: str) -> tuple[str, str]:
    """Return the path of a problem file and a label that names its source.

    The file is taken from the folder WIZARDCODER_DATA, or downloaded from `address` and cached.

    Args:
        name: name of the benchmark, for the error message.
        files: paths to try below WIZARDCODER_DATA, in order of preference.
        address: URL of the file: hf://datasets/ORG/NAME/FILE or https://...

    Raises:
        InputError: the file cannot be found; the message says what to do.
    """
    found = find_in_data_dir(files)
    if found is not None:
        return found
    try:
        path = _download(address)
    except InputError as error:
        raise InputError(
            f"cannot find the problems of {name} ({error}); give --benchmark-file FILE, or set WIZARDCODER_DATA to a folder "
            f"that contains {files[0]}"
        ) from error
    return path, address.partition("://")[2]


def _download(address: str) -> str:
    """Download a file unless it is cached, and return its local path; unlike huggingface_hub, log nothing and never retry."""
    if address.startswith(_HUB):
        org, dataset, file = address.removeprefix(_HUB).split("/", 2)
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        address = f"{endpoint}/datasets/{org}/{dataset}/resolve/main/{file}"
    folder = hashlib.sha256(address.encode()).hexdigest()[:12]
    path = os.path.join(default_cache_dir(), "benchmarks", folder, PurePosixPath(address).name)
    if not os.path.exists(path):
        if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            raise InputError(f"{address} is not downloaded because HF_HUB_OFFLINE is set")
        try:
            with urllib.request.urlopen(address, timeout=_DOWNLOAD_TIMEOUT_S) as response:
                content = response.read()
        except (OSError, ValueError) as error:
            raise InputError(f"{address} cannot be downloaded: {getattr(error, 'reason', error)}") from error
        with atomic_write(path) as file:
            file.write(content)
    return path


def hash_content(path: str) -> str:
    """Return a short hash of a file's decompressed content, the same whether the file is plain or .gz."""
    return file_sha256(path)[:12]
