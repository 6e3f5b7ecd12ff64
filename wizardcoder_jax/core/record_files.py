"""Files of records: JSONL, JSON arrays and parquet, plain or gzipped, local or on gs://."""

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import atomic_write, open_bytes, parse_json


def read_records(path: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, record) for each object of a file, where the place is "FILE:LINE" or "FILE:[INDEX]".

    JSONL and parquet files are streamed, whereas a JSON array is loaded as a whole.

    Raises:
        InputError: the file cannot be read, is malformed, or contains anything but objects. The message names file and line.
    """
    name = os.fspath(path)
    is_parquet = name.removesuffix(".gz").endswith(".parquet")
    with open_bytes(path) as file:
        for place, entry in (_read_parquet if is_parquet else _read_json)(name, file):
            if not isinstance(entry, dict):
                raise InputError(f"{place}: expected a JSON object, found {type(entry).__name__}")
            yield place, entry


def write_jsonl(path: str | os.PathLike[str], records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line, atomically. The file is gzipped if its name ends in .gz."""
    with atomic_write(path) as file:
        compressed = gzip.GzipFile(fileobj=file, mode="wb", mtime=0) if os.fspath(path).endswith(".gz") else None
        with compressed or contextlib.nullcontext(file) as out:
            for record in records:
                out.write(json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n")


def _read_json(name: str, file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    num_bytes, is_first = 0, True
    # Only "\n" ends a line. str.splitlines would also split at U+2028 and other characters that JSON strings may contain.
    for number, line in enumerate(_read_lines(name, file), start=1):
        text = _decode(name, line, num_bytes)
        num_bytes += len(line)
        if number == 1:
            text = text.removeprefix("\ufeff")  # the byte order mark that some editors write
        if not text.strip():
            continue
        if is_first and text.lstrip().startswith("["):
            rest = b"".join(_read_lines(name, file))
            whole = "\n" * (number - 1) + text + _decode(name, rest, num_bytes)  # padded so that errors name the right line
            yield from ((f"{name}:[{i}]", entry) for i, entry in enumerate(parse_json(name, whole)))
            return
        is_first = False
        yield f"{name}:{number}", parse_json(f"{name}:{number}", text.removesuffix("\n"))


def _read_lines(name: str, file: IO[bytes]) -> Iterator[bytes]:
    try:
        yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name}: the file is damaged or incomplete: {error}") from error


def _decode(name: str, content: bytes, offset: int) -> str:
    """Decode the part of a file that begins at byte `offset`."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 at byte {offset + error.start}") from error


def _read_parquet(name: str, file: IO[bytes]) -> Iterator[tuple[str, Any]]:
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
