"""SHA-256 hash of the content of a file, which may be compressed."""

import hashlib
import os

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import open_bytes

BLOCK_BYTES = 1 << 20


def file_sha256(path: str | os.PathLike[str], unzip: bool = True) -> str:
    """Return the SHA-256 of a file. With `unzip`, hash the decompressed content of a .gz file.

    Raises:
        InputError: the file cannot be read to its end.
    """
    digest = hashlib.sha256()
    with open_bytes(path, unzip) as file:
        try:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
        except (OSError, EOFError) as error:
            raise InputError(f"{os.fspath(path)} cannot be read to its end: {error}") from error
    return digest.hexdigest()
