"""Answers' programs run in the sandbox, several at a time, each once: evolve's execution filter."""

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from wizardcoder_jax.core.errors import InputError, StoppedEarlyError
from wizardcoder_jax.evol_instruct.execution_filter import Ending
from wizardcoder_jax.sandbox.program import SANDBOX, TIMEOUT, Program
from wizardcoder_jax.sandbox.runner import Sandbox


class CodeExecution:
    """Runs programs and remembers how they ended; use as a context manager, in one event loop.

    A program whose ending depends on time or chance has one ending all the same: the first, which is kept in a file, so that
    a run that goes on after an interruption comes to the same records. A timeout beside other programs is not believed: the
    program runs again, alone.

    Args:
        sandbox: runs them; stopped at the end.
        file: an sqlite file of endings.
        timeout_s: CPU seconds of one program.
        num_workers: programs at once.

    Raises:
        InputError: the file is no such file.
        StoppedEarlyError: there is no room for it; a program's ending raises this too.
    """

    def __init__(self, sandbox: Sandbox, file: Path, *, timeout_s: float, num_workers: int) -> None:
        self._sandbox, self._timeout_s, self._num_workers, self._file = sandbox, timeout_s, num_workers, file
        self._executor = ThreadPoolExecutor(num_workers, thread_name_prefix="trial")
        self._free = asyncio.Semaphore(num_workers)
        self._turn = asyncio.Lock()  # of who waits for all workers
        self._running: dict[bytes, asyncio.Future[Ending]] = {}
        with _explained(file):
            self._endings = sqlite3.connect(file, isolation_level=None)
            self._endings.execute("PRAGMA journal_mode = WAL")
            self._endings.execute("PRAGMA synchronous = NORMAL")
            self._endings.execute(
                "CREATE TABLE IF NOT EXISTS endings (key BLOB PRIMARY KEY, reason TEXT, detail TEXT) WITHOUT ROWID"
            )

    async def __call__(self, code: str, test: str) -> Ending:
        """How `code` and then `test` end in one interpreter."""
        program = Program(candidate=code, test=test)
        key = hashlib.sha256(f"{program.digest()} {self._timeout_s}".encode()).digest()
        known = self._endings.execute("SELECT reason, detail FROM endings WHERE key = ?", (key,)).fetchone()
        if known is not None:
            return Ending(reason=known[0], detail=known[1])
        if key not in self._running:
            self._running[key] = asyncio.ensure_future(self._run(key, program))
        return await asyncio.shield(self._running[key])

    async def _run(self, key: bytes, program: Program) -> Ending:
        try:
            async with self._free:
                ending = await self._in_a_thread(program)
            if ending.reason in (TIMEOUT, SANDBOX) and self._num_workers > 1:
                ending = await self._alone(program)
            if ending.reason != SANDBOX:  # a sandbox that failed may do better another time
                with _explained(self._file):
                    self._endings.execute("INSERT OR IGNORE INTO endings VALUES (?, ?, ?)", (key, ending.reason, ending.detail))
            return ending
        finally:
            del self._running[key]

    async def _alone(self, program: Program) -> Ending:
        async with self._turn:
            num_held = 0
            try:
                while num_held < self._num_workers:
                    await self._free.acquire()
                    num_held += 1
                return await self._in_a_thread(program)
            finally:
                for _ in range(num_held):
                    self._free.release()

    async def _in_a_thread(self, program: Program) -> Ending:
        loop = asyncio.get_running_loop()
        verdict = await loop.run_in_executor(self._executor, self._sandbox.run, program, self._timeout_s)
        detail = verdict.detail.encode("utf-8", "replace").decode()
        return Ending(reason=verdict.reason, detail=detail)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._sandbox.stop()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._endings.close()


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise StoppedEarlyError(f"cannot write {file} ({error}); make room, then the same command resumes") from error
        raise InputError(f"{file} cannot be used for the endings of programs ({error}); move it away") from error
