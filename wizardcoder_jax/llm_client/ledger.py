"""The ledger of paid answers: each answer is stored durably before it is used, so that no call is ever paid for twice.

The ledger is an SQLite file with one row per call, in the order in which the rows were written. In WAL mode with
synchronous=FULL, a written row survives kill -9 and power loss.
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
    key TEXT PRIMARY KEY,        -- hash of model, decoding settings and the columns up to `messages`
    purpose TEXT NOT NULL,       -- evolve, answer, judge, sample, ...
    record_id TEXT NOT NULL,     -- parent of the evolution, or task id
    round INTEGER NOT NULL,      -- round of the evolution, or sample index
    messages TEXT NOT NULL,      -- JSON: the messages, or the bare prompt
    completion TEXT NOT NULL,    -- JSON: the fields of Completion
    usd REAL NOT NULL            -- cost of the call
)
"""
# If a server did not report a token count, the length of the JSON replaces it. This is an upper bound, because a text has at
# most one token per byte and its JSON is at least as long as the text.
_TOTALS = """
SELECT COUNT(*), TOTAL(usd), TOTAL(
    COALESCE(json_extract(completion, '$.prompt_tokens'), LENGTH(messages))
    + COALESCE(json_extract(completion, '$.completion_tokens'), LENGTH(completion))
) FROM calls
"""
_COLUMNS = "SELECT key, purpose, record_id, round, messages, completion, usd FROM calls LIMIT 0"
_FULL = "cannot write the ledger ({error}); free disk space, then the same command resumes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spending:
    """Total number, cost and tokens of a set of calls."""

    requests: int = 0  # number of calls
    usd: float = 0.0  # total cost
    tokens: int = 0  # number of tokens in prompts and answers


@contextlib.contextmanager
def exclusive_lock(descriptor: int, message: str) -> Iterator[None]:
    """Lock an open file or folder, so that two processes never pay for the same answers.

    Args:
        descriptor: file descriptor of the file or folder, which is closed when the context ends.
        message: error message if another process holds the lock.

    Raises:
        InputError: another process holds the lock.
    """
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(message) from error
        yield
    finally:
        os.close(descriptor)


def remove_ledger(path: Path) -> None:
    """Delete a ledger that no process has open, and SQLite's files next to it. Does nothing if there is no ledger."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One row of the ledger, which stores one answered call."""

    key: str
    purpose: str
    record_id: str
    number: int
    messages: Sequence[Message] | str
    completion: Completion
    usd: float

    def values(self) -> tuple[Any, ...]:
        """Return the values of the table's columns, in order."""
        messages, completion = json.dumps(self.messages), json.dumps(vars(self.completion))
        return self.key, self.purpose, self.record_id, self.number, messages, completion, self.usd


class Ledger:
    """A store of paid answers by key, for one event loop of one process at a time. Use it as a context manager.

    A background thread writes the rows. All rows that are waiting share one transaction and its flush to disk (group commit).

    Args:
        path: path of the SQLite file, which is created if it does not exist.

    Raises:
        InputError: the existing file is not a ledger.
        StoppedEarlyError: the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[tuple[LedgerRow, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._failure: StoppedEarlyError | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        try:
            self._writer = self._connect(path)
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute("PRAGMA synchronous=FULL")
            self._writer.execute(_SCHEMA)
            self._reader = self._connect(path)
            self._reader.execute(_COLUMNS)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise StoppedEarlyError(_FULL.format(error=error)) from error
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> InputError:
        problem = f"{self._path} cannot be used as the ledger ({error})"
        return InputError(f"{problem}; move or rename it, or pass --overwrite to replace it")

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None)

    def get(self, key: str) -> tuple[Completion, float] | None:
        """Return the stored answer to a call and its cost in USD, or None if the call is not in the ledger.

        Raises:
            InputError: the ledger file is damaged.
        """
        try:
            row = self._reader.execute("SELECT completion, usd FROM calls WHERE key = ?", (key,)).fetchone()
            return None if row is None else (Completion(**json.loads(row[0])), row[1])
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise self._unusable(error) from error

    def check(self) -> None:
        """Check that the ledger is still writable, before the next call is paid for.

        Raises:
            StoppedEarlyError: an earlier answer could not be written.
        """
        if self._failure is not None:
            raise StoppedEarlyError(*self._failure.args)

    async def put(self, row: LedgerRow) -> None:
        """Store an answer, which is durable when this method returns.

        Raises:
            StoppedEarlyError: the answer cannot be written, e.g. because the disk is full.
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

    def totals(self) -> Spending:
        """Return the total spending of all runs so far.

        Raises:
            InputError: the ledger file is damaged.
        """
        try:
            totals = self._reader.execute(_TOTALS).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error
        return Spending(requests=totals[0], usd=totals[1], tokens=int(totals[2]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown()
        with contextlib.suppress(sqlite3.Error):
            if self._waiting:  # the run was interrupted, but these answers have already been paid for
                self._write([row for row, _ in self._waiting])
        self._reader.close()
        self._writer.close()  # closing the last connection merges the write-ahead log into the file
