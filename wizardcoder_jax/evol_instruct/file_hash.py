"""The hash of a file's content, compressed or not."""

import hashlib
import os

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import open_bytes

BLOCK_BYTES = 1 << 20


def file_sha256(path: str | os.PathLike[str], unzip: bool = True) -> str:
    """Return the SHA-256 of a file; with `unzip`, a file whose name ends in .gz is hashed as its decompressed content.

    Raises:
        InputError: the file cannot be read completely.
    """
    digest = hashlib.sha256()
    with open_bytes(path, unzip) as file:
        try:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
        except (OSError, EOFError) as error:
            raise InputError(f"{os.fspath(path)}: cannot be read completely: {error}") from error
    return digest.hexdigest()
