"""The ledger: every answer of a teacher, written durably before it is used, so that no call is ever paid for twice.

One sqlite file, one row a call. WAL with synchronous=FULL: a row that was written survives kill -9 and power loss.
"""

import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from wizardcoder_jax.errors import InputError, StoppedEarlyError
from wizardcoder_jax.instructions.teachers import Completion, Message

FILE_NAME = "ledger.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY,        -- hash of teacher, decoding settings, messages, purpose, record and round
    purpose TEXT NOT NULL,       -- evolve, answer or judge
    record_id TEXT NOT NULL,     -- the parent of the evolution
    round INTEGER NOT NULL,
    messages TEXT NOT NULL,      -- JSON
    completion TEXT NOT NULL,    -- JSON: the fields of Completion
    usd REAL NOT NULL            -- what the call cost
) WITHOUT ROWID
"""


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
        round_: int,
        messages: Sequence[Message],
        completion: Completion,
        usd: float,
    ) -> None:
        """Writes an answer; it is durable when this returns.

        Raises:
            StoppedEarlyError: it cannot be written, e.g. because the disk is full.
        """
        texts = json.dumps([dict(message) for message in messages]), json.dumps(vars(completion))
        row = (key, purpose, record_id, round_, *texts, usd)
        try:
            with self._lock:
                self._connection.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.OperationalError as error:
            raise StoppedEarlyError(f"cannot write {FILE_NAME} ({error}); make room, then the same command resumes") from error

    def totals(self) -> tuple[int, float]:
        """The number of calls and their cost in USD, of all runs so far."""
        with self._lock:
            num_calls, usd = self._connection.execute("SELECT COUNT(*), TOTAL(usd) FROM calls").fetchone()
        return num_calls, usd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._connection.close()  # folds the write-ahead log into the file
