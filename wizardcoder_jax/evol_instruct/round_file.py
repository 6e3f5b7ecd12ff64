"""The kept records of one round on the disk, read back while they are written."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from wizardcoder_jax.core import filesystem
from wizardcoder_jax.evol_instruct.records import Record


class RoundFile:
    """One round: a line for each record that it kept, in the order of its pool.

    Attributes:
        num_decided: outcomes so far, dropped ones too.
        num_kept: lines so far.
        is_whole: whether the round is over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._num_flushed = 0
        self.num_decided = self.num_kept = 0
        self.is_whole = False

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The round; its file appears under its name when the context ends without an error."""
        with filesystem.atomic_write(self._path) as self._file:
            yield
        self.is_whole, self._num_flushed = True, self.num_kept

    def add(self, record: Record | None) -> None:
        """The next outcome: a record that is kept, or None."""
        assert self._file is not None
        self.num_decided += 1
        if record is not None:
            self._file.write(to_json_line(record.to_json()))
            self.num_kept += 1

    def open(self) -> IO[bytes]:
        """The lines, from the first."""
        return open(self._path if self.is_whole or self._file is None else self._file.name, "rb")

    def flush(self, num_lines: int) -> None:
        """Makes so many lines readable."""
        if num_lines > self._num_flushed and self._file is not None:
            self._file.flush()
            self._num_flushed = self.num_kept


class RoundReader:
    """Reads a round's records, those that are there; the file is open from the first of them until `close`."""

    def __init__(self, round_file: RoundFile) -> None:
        self._round, self._num_read = round_file, 0
        self._file: IO[bytes] | None = None
        self._next: Record | None = None

    def peek(self) -> Record | None:
        """The next record; None where none is written yet."""
        if self._next is None and self._num_read < self._round.num_kept:
            self._file = self._file or self._round.open()
            self._num_read += 1
            self._round.flush(self._num_read)
            self._next = Record.from_json(json.loads(self._file.readline()))
        return self._next

    def take(self) -> Record | None:
        """The next record, and goes past it."""
        record, self._next = self.peek(), None
        return record

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def iter_newest_records(rounds: list[RoundFile]) -> Iterator[Record | None]:
    """For each record of the first round its newest descendant in all of them, or itself; None where it is not decided yet."""
    with contextlib.ExitStack() as stack:
        seeds, *evolved = (stack.enter_context(contextlib.closing(RoundReader(one))) for one in rounds)
        slot = 0
        while True:
            if seeds.peek() is None:
                if rounds[0].is_whole:
                    return
                yield None
                continue
            # A later round has the seeds' order too, and lacks those whose evolution failed.
            if evolved and rounds[-1].num_decided <= slot:
                yield None
                continue
            newest = seeds.take()
            assert newest is not None
            for reader in evolved:
                following = reader.peek()
                if following is not None and following.seed_id == newest.seed_id:
                    newest = following
                    reader.take()
            slot += 1
            yield newest


def to_json_line(entry: dict[str, Any]) -> bytes:
    """A line of JSONL."""
    return json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n"
