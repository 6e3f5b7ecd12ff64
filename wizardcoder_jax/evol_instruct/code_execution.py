"""Runs the programs of evolve's execution filter in the sandbox, each one once, and stores their results."""

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from wizardcoder_jax.core.errors import InputError, StoppedEarlyError
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.evol_instruct.execution_filter import ExecutionResult
from wizardcoder_jax.sandbox.program_runner import ProgramRunner
from wizardcoder_jax.sandbox.sandbox import Sandbox
from wizardcoder_jax.sandbox.verdict import SANDBOX


class CodeExecution:
    """Runs programs and stores their results; use it as a context manager, in one event loop.

    A program's first result is stored in a file and never changes, even if it depended on time or chance. A resumed run
    therefore produces the same records.

    Args:
        sandbox: runs the programs; stopped when the context manager exits.
        file: path of the SQLite file that stores the results.
        timeout_s: CPU seconds of one program.
        num_workers: number of programs that run concurrently.

    Raises:
        InputError: the file is not an SQLite file of results.
        StoppedEarlyError: the disk is full; running a program can raise this too.
    """

    def __init__(self, sandbox: Sandbox, file: Path, *, timeout_s: float, num_workers: int) -> None:
        self._runner = ProgramRunner(sandbox, timeout_s=timeout_s, num_workers=num_workers)
        self._timeout_s, self._file = timeout_s, file
        self._running: dict[bytes, asyncio.Future[ExecutionResult]] = {}
        with _explain_errors(file):
            self._results = sqlite3.connect(file, isolation_level=None)
            self._results.execute("PRAGMA journal_mode = WAL")
            self._results.execute("PRAGMA synchronous = NORMAL")
            self._results.execute(
                "CREATE TABLE IF NOT EXISTS endings (key BLOB PRIMARY KEY, reason TEXT, detail TEXT) WITHOUT ROWID"
            )

    async def __call__(self, code: str, test: str) -> ExecutionResult:
        """Run `code` and then `test` in the same interpreter, unless the result is stored; return the result."""
        program = Program(candidate=code, test=test)
        key = hashlib.sha256(f"{program.digest()} {self._timeout_s}".encode()).digest()
        stored = self._results.execute("SELECT reason, detail FROM endings WHERE key = ?", (key,)).fetchone()
        if stored is not None:
            return ExecutionResult(reason=stored[0], detail=stored[1])
        if key not in self._running:
            self._running[key] = asyncio.ensure_future(self._run(key, program))
        return await asyncio.shield(self._running[key])

    async def _run(self, key: bytes, program: Program) -> ExecutionResult:
        try:
            verdict = await asyncio.wrap_future(self._runner.submit(program))
            result = ExecutionResult(reason=verdict.reason, detail=verdict.detail.encode("utf-8", "replace").decode())
            if result.reason != SANDBOX:  # after a sandbox failure, a resumed run tries again
                with _explain_errors(self._file):
                    self._results.execute("INSERT OR IGNORE INTO endings VALUES (?, ?, ?)", (key, result.reason, result.detail))
            return result
        finally:
            del self._running[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._runner.close()
        self._results.close()


@contextlib.contextmanager
def _explain_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise StoppedEarlyError(f"cannot write {file} ({error}); free disk space and rerun the same command") from error
        raise InputError(f"{file} cannot be used to store the results of programs ({error}); move or rename it") from error
