"""The ledger: every answer of a paid model, written durably before it is used, so that no call is ever paid for twice.

One sqlite file, one row a call, in the order of writing. WAL with synchronous=FULL: a row that was written survives kill -9
and power loss.
"""

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wizardcoder_jax.core.errors import InputError, StoppedEarlyError
from wizardcoder_jax.llm_client.completion import Completion, Message

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY,        -- hash of model, decoding settings and all that follows up to `messages`
    purpose TEXT NOT NULL,       -- evolve, answer, judge, sample, ...
    record_id TEXT NOT NULL,     -- the parent of the evolution, or the task
    round INTEGER NOT NULL,      -- of the evolution, or the sample's index
    messages TEXT NOT NULL,      -- JSON: the messages, or the bare prompt
    completion TEXT NOT NULL,    -- JSON: the fields of Completion
    usd REAL NOT NULL            -- what the call cost
)
"""
# A text has no more tokens than bytes, its JSON no fewer bytes than the text: what a server did not say is not undercounted.
_TOTALS = """
SELECT COUNT(*), TOTAL(usd), TOTAL(
    COALESCE(json_extract(completion, '$.prompt_tokens'), LENGTH(messages))
    + COALESCE(json_extract(completion, '$.completion_tokens'), LENGTH(completion))
) FROM calls
"""
_COLUMNS = "SELECT key, purpose, record_id, round, messages, completion, usd FROM calls LIMIT 0"
_FULL = "cannot write the ledger ({error}); make room, then the same command resumes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spent:
    """What calls have cost."""

    requests: int = 0
    usd: float = 0.0
    tokens: int = 0  # of prompts and answers


@contextlib.contextmanager
def held(descriptor: int, complaint: str) -> Iterator[None]:
    """Holds an open file or folder, so that no second process pays for the same answers; closes it at the end.

    Raises:
        InputError: another process holds it; in the words of `complaint`.
    """
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(complaint) from error
        yield
    finally:
        os.close(descriptor)


def remove_ledger(path: Path) -> None:
    """Removes a ledger that nobody has open, with sqlite's files beside it; one that is not there is no matter."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One answered call, as the ledger holds it."""

    key: str
    purpose: str
    record_id: str
    number: int
    asked: Sequence[Message] | str
    completion: Completion
    usd: float

    def values(self) -> tuple[Any, ...]:
        """The columns, in the table's order."""
        asked, completion = json.dumps(self.asked), json.dumps(vars(self.completion))
        return self.key, self.purpose, self.record_id, self.number, asked, completion, self.usd


class Ledger:
    """Answers by key, until the context ends; for one event loop of one process at a time.

    Rows are written by a thread of the ledger's own: all that wait go into one transaction, whose flush to the disk they
    share (group commit).

    Args:
        path: the sqlite file, made where it is missing.

    Raises:
        InputError: the file is there but no ledger.
        StoppedEarlyError: there is no room for it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[tuple[LedgerRow, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._failure: StoppedEarlyError | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        try:
            self._writer = self._connected(path)
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute("PRAGMA synchronous=FULL")
            self._writer.execute(_SCHEMA)
            self._reader = self._connected(path)
            self._reader.execute(_COLUMNS)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise StoppedEarlyError(_FULL.format(error=error)) from error
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> InputError:
        return InputError(f"{self._path} cannot be used as the ledger ({error}); move it away, or give --overwrite")

    @staticmethod
    def _connected(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None)

    def get(self, key: str) -> tuple[Completion, float] | None:
        """The answer and its cost in USD, or None.

        Raises:
            InputError: the file is damaged.
        """
        try:
            row = self._reader.execute("SELECT completion, usd FROM calls WHERE key = ?", (key,)).fetchone()
            return None if row is None else (Completion(**json.loads(row[0])), row[1])
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise self._unusable(error) from error

    def check(self) -> None:
        """Raises StoppedEarlyError where an answer could not be written: none should be paid for any more."""
        if self._failure is not None:
            raise StoppedEarlyError(*self._failure.args)

    async def put(self, row: LedgerRow) -> None:
        """Writes an answer; it is durable when this returns.

        Raises:
            StoppedEarlyError: it cannot be written, e.g. because the disk is full.
        """
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._waiting.append((row, written))
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._write_all())
        await written

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await loop.run_in_executor(self._thread, self._write, [row for row, _ in batch])
            except sqlite3.Error as error:
                self._failure = StoppedEarlyError(_FULL.format(error=error))
            for _, written in batch:
                if written.cancelled():
                    continue
                if self._failure is None:
                    written.set_result(None)
                else:
                    written.set_exception(StoppedEarlyError(*self._failure.args))

    def _write(self, rows: Sequence[LedgerRow]) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany(
                "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", [row.values() for row in rows]
            )
            self._writer.execute("COMMIT")
        finally:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def totals(self) -> Spent:
        """What all runs so far have spent.

        Raises:
            InputError: the file is damaged.
        """
        try:
            totals = self._reader.execute(_TOTALS).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error
        return Spent(requests=totals[0], usd=totals[1], tokens=int(totals[2]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown()
        with contextlib.suppress(sqlite3.Error):
            if self._waiting:  # interrupted: these are paid for
                self._write([row for row, _ in self._waiting])
        self._reader.close()
        self._writer.close()  # the last to close folds the write-ahead log into the file
