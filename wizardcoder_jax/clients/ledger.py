"""The ledger: every answer of a paid model, written durably before it is used, so that no call is ever paid for twice.

One sqlite file, one row a call. WAL with synchronous=FULL: a row that was written survives kill -9 and power loss.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from wizardcoder_jax.clients.completion import Completion, Message
from wizardcoder_jax.errors import InputError, StoppedEarlyError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY,        -- hash of model, decoding settings and all that follows up to `messages`
    purpose TEXT NOT NULL,       -- evolve, answer, judge or sample
    record_id TEXT NOT NULL,     -- the parent of the evolution, or the task
    round INTEGER NOT NULL,      -- of the evolution, or the sample's index
    messages TEXT NOT NULL,      -- JSON: the messages, or the bare prompt
    completion TEXT NOT NULL,    -- JSON: the fields of Completion
    usd REAL NOT NULL            -- what the call cost
) WITHOUT ROWID
"""
# A text has no more tokens than bytes, its JSON no fewer bytes than the text: what a server did not say is not undercounted.
_TOTALS = """
SELECT COUNT(*), TOTAL(usd), TOTAL(
    COALESCE(json_extract(completion, '$.prompt_tokens'), LENGTH(messages))
    + COALESCE(json_extract(completion, '$.completion_tokens'), LENGTH(completion))
) FROM calls
"""


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


class Ledger:
    """Answers by key, until the context ends; may be used from several threads, by one process at a time.

    Args:
        path: the sqlite file, made where it is missing.

    Raises:
        InputError: the file is there but no ledger.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} cannot be used as the ledger ({error}); move it away, or give --overwrite") from error

    def get(self, key: str) -> tuple[Completion, float] | None:
        """The answer and its cost in USD, or None."""
        with self._lock:
            row = self._connection.execute("SELECT completion, usd FROM calls WHERE key = ?", (key,)).fetchone()
        return None if row is None else (Completion(**json.loads(row[0])), row[1])

    def put(
        self,
        key: str,
        *,
        purpose: str,
        record_id: str,
        number: int,
        asked: Sequence[Message] | str,
        completion: Completion,
        usd: float,
    ) -> None:
        """Writes an answer; it is durable when this returns.

        Raises:
            StoppedEarlyError: it cannot be written, e.g. because the disk is full.
        """
        row = (key, purpose, record_id, number, json.dumps(asked), json.dumps(vars(completion)), usd)
        try:
            with self._lock:
                self._connection.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.OperationalError as error:
            raise StoppedEarlyError(f"cannot write the ledger ({error}); make room, then the same command resumes") from error

    def totals(self) -> Spent:
        """What all runs so far have spent."""
        with self._lock:
            totals = self._connection.execute(_TOTALS).fetchone()
        return Spent(requests=totals[0], usd=totals[1], tokens=int(totals[2]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._connection.close()  # folds the write-ahead log into the file
