"""Exports evolved.jsonl to formats that other tools read: Alpaca JSON, chat messages and Parquet. Records are streamed."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import IO, Any

from wizardcoder_jax.core.filesystem import atomic_write
from wizardcoder_jax.core.record_files import read_records

ROWS_PER_GROUP = 5_000  # number of rows per Parquet row group; only one group is in memory at a time

Records = Iterator[dict[str, Any]]


def write_exports(folder: str | os.PathLike[str], formats: Sequence[str]) -> list[str]:
    """Export the records of evolved.jsonl to other formats, as files in the same folder.

    * "alpaca" writes evolved.alpaca.json, an array of {"instruction", "input": "", "output"};
    * "messages" writes evolved.messages.jsonl, with {"id", "seed_id", "messages": [user, assistant]} on each line;
    * "parquet" writes evolved.parquet, with all fields of evolved.jsonl. The field "usage" becomes two columns.

    Args:
        folder: the output folder of a run of the `evolve` command.
        formats: names of formats from the list above.

    Returns:
        The paths of the written files.

    Raises:
        InputError: the folder has no evolved.jsonl, or a file cannot be written.
    """
    written = []
    for format_ in formats:
        name, write = _FORMATS[format_]
        path = os.path.join(folder, name)
        with atomic_write(path) as file:
            write(file, (record for _, record in read_records(os.path.join(folder, "evolved.jsonl"))))
        written.append(path)
    return written


def _write_alpaca(file: IO[bytes], records: Records) -> None:
    file.write(b"[")
    for i, record in enumerate(records):
        entry = {"instruction": record["instruction"], "input": "", "output": record["output"]}
        file.write((b",\n" if i else b"\n") + _json(entry))
    file.write(b"\n]\n")


def _write_messages(file: IO[bytes], records: Records) -> None:
    for record in records:
        texts = (("user", record["instruction"]), ("assistant", record["output"]))
        messages = [{"role": role, "content": text} for role, text in texts]
        file.write(_json({"id": record["id"], "seed_id": record["seed_id"], "messages": messages}) + b"\n")


def _write_parquet(file: IO[bytes], records: Records) -> None:
    import pyarrow
    from pyarrow import parquet

    text, texts = pyarrow.string(), pyarrow.list_(pyarrow.string())
    schema = pyarrow.schema(
        [
            *((name, text) for name in ("id", "parent_id", "seed_id")),
            ("round", pyarrow.int32()),
            ("method", pyarrow.int32()),
            *((name, text) for name in ("instruction", "output", "teacher")),
            *((name, pyarrow.int64()) for name in ("prompt_tokens", "completion_tokens")),
            *(("filters", texts), ("task", text), ("language", text), ("call_ids", texts)),
        ]
    )
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(records, ROWS_PER_GROUP)):
            rows = [{**record, **record["usage"]} for record in group]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


_FORMATS: dict[str, tuple[str, Callable[[IO[bytes], Records], None]]] = {
    "alpaca": ("evolved.alpaca.json", _write_alpaca),
    "messages": ("evolved.messages.jsonl", _write_messages),
    "parquet": ("evolved.parquet", _write_parquet),
}
