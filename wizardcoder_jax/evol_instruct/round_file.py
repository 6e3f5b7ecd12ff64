"""The file with the kept records of one round, which can be read while it is being written."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from wizardcoder_jax.core import filesystem
from wizardcoder_jax.evol_instruct.records import Record


class RoundFile:
    """A JSONL file with a line for each kept record of one round, in the order of the records that the round evolves.

    Attributes:
        num_decided: number of outcomes so far, kept and rejected records together.
        num_kept: number of kept records so far, which is the number of lines.
        is_complete: whether all records of the round have been written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._num_flushed = 0
        self.num_decided = self.num_kept = 0
        self.is_complete = False

    @contextlib.contextmanager
    def open_for_writing(self) -> Iterator[None]:
        """Open the file, so that `add` can be called. The file gets its final name when the context ends without an error."""
        with filesystem.atomic_write(self._path) as self._file:
            yield
        self.is_complete, self._num_flushed = True, self.num_kept

    def add(self, record: Record | None) -> None:
        """Add the next outcome of the round: a kept record, or None for a rejected one."""
        assert self._file is not None
        self.num_decided += 1
        if record is not None:
            self._file.write(to_json_line(record.to_json()))
            self.num_kept += 1

    def open_for_reading(self) -> IO[bytes]:
        """Open the file for reading from its first line, even while it is being written."""
        return open(self._path if self.is_complete or self._file is None else self._file.name, "rb")

    def flush(self, num_lines: int) -> None:
        """Make sure that readers can see at least the first `num_lines` lines."""
        if num_lines > self._num_flushed and self._file is not None:
            self._file.flush()
            self._num_flushed = self.num_kept


class RoundReader:
    """A reader of a round file that may still be growing. The file stays open from the first record until `close`."""

    def __init__(self, round_file: RoundFile) -> None:
        self._round, self._num_read = round_file, 0
        self._file: IO[bytes] | None = None
        self._next: Record | None = None

    def peek(self) -> Record | None:
        """Return the next record without consuming it; None if no further record has been written yet."""
        if self._next is None and self._num_read < self._round.num_kept:
            self._file = self._file or self._round.open_for_reading()
            self._num_read += 1
            self._round.flush(self._num_read)
            self._next = Record.from_json(json.loads(self._file.readline()))
        return self._next

    def pop(self) -> Record | None:
        """Return the next record and advance; None if no further record has been written yet."""
        record, self._next = self.peek(), None
        return record

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def iter_newest_records(rounds: list[RoundFile]) -> Iterator[Record | None]:
    """Yield the newest descendant of each seed, or the seed itself if it has none; None while that is not known yet.

    Args:
        rounds: files of consecutive rounds; the first one contains the seeds.
    """
    with contextlib.ExitStack() as stack:
        seeds, *evolved = (stack.enter_context(contextlib.closing(RoundReader(round_file))) for round_file in rounds)
        pool_index = 0
        while True:
            if seeds.peek() is None:
                if rounds[0].is_complete:
                    return
                yield None
                continue
            # Later rounds have the order of the seeds too, but lack a record for each seed whose evolution failed.
            if evolved and rounds[-1].num_decided <= pool_index:
                yield None
                continue
            newest = seeds.pop()
            assert newest is not None
            for reader in evolved:
                descendant = reader.peek()
                if descendant is not None and descendant.seed_id == newest.seed_id:
                    newest = descendant
                    reader.pop()
            pool_index += 1
            yield newest


def to_json_line(entry: dict[str, Any]) -> bytes:
    """Return `entry` as a line of JSONL."""
    return json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n"
