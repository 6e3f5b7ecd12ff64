"""Runs many programs concurrently in a sandbox, for evaluation, evaluation during training and evolve's execution filter."""

import collections
import dataclasses
import threading
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import Self, TypeVar

from wizardcoder_jax.core.program import Program
from wizardcoder_jax.sandbox.sandbox import Sandbox
from wizardcoder_jax.sandbox.verdict import EXCEPTION, SANDBOX, TIMEOUT, Verdict

Key = TypeVar("Key", bound=Hashable)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    program: Program
    future: "Future[Verdict]"


class ProgramRunner:
    """Runs programs on several threads; use it as a context manager, which stops the sandbox at the end.

    A timeout or a sandbox failure may be caused by other programs that were running at the same time. Such a program runs a
    second time, alone, and only the second verdict counts. Second runs start once no program is waiting for its first run.

    Args:
        sandbox: runs each program; stopped by `close`.
        timeout_s: CPU seconds that one program may take, see Sandbox.run.
        num_workers: number of programs that run concurrently.
        timeout_exceptions: names of exception types with which a test reports that a single call took too long; such a
            verdict counts as a timeout.
    """

    def __init__(
        self, sandbox: Sandbox, *, timeout_s: float, num_workers: int, timeout_exceptions: Collection[str] = ()
    ) -> None:
        self.sandbox = sandbox
        self._timeout_s, self._num_workers = timeout_s, num_workers
        self._timeout_reasons = {f"{EXCEPTION}:{name}" for name in timeout_exceptions}
        self._executor = ThreadPoolExecutor(num_workers, thread_name_prefix="sandbox")
        self._lock = threading.Lock()  # guards all attributes below
        self._waiting: collections.deque[_Task] = collections.deque()
        self._unconfirmed: collections.deque[_Task] = collections.deque()  # tasks that must run a second time, alone
        self._num_running = 0
        self._is_confirming = False  # whether only second runs may start; first runs wait
        self._is_closed = False

    def submit(self, program: Program) -> "Future[Verdict]":
        """Schedule one program and return the future of its verdict."""
        return self._submit_all([program])[0]

    def run_all(self, programs: Mapping[Key, Program]) -> Iterator[tuple[Key, Verdict]]:
        """Run programs and yield (key, verdict) as each ends; close the runner if the caller stops iterating early.

        Raises:
            InputError: an interpreter or a toolchain is missing; raised before any program runs.
        """
        self.sandbox.check_tools(programs.values())
        keys = dict(zip(self._submit_all(programs.values()), programs, strict=True))
        try:
            for future in as_completed(keys):
                yield keys[future], future.result()
        except BaseException:  # also GeneratorExit and Ctrl-C: no process may be left behind
            self.close()
            raise

    def close(self) -> None:
        """Kill the running programs, drop the waiting ones and stop the sandbox."""
        with self._lock:
            self._is_closed = True
            for task in self._waiting:
                task.future.cancel()
            for task in self._unconfirmed:
                task.future.set_result(Verdict(reason=SANDBOX, detail="stopped", seconds=0.0))
            self._waiting.clear()
            self._unconfirmed.clear()
        self.sandbox.stop()
        self._executor.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _submit_all(self, programs: Iterable[Program]) -> "list[Future[Verdict]]":
        tasks = [_Task(program=program, future=Future()) for program in programs]
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the program runner is closed")
            self._waiting.extend(tasks)
            self._start_ready()
        return [task.future for task in tasks]

    def _start_ready(self) -> None:
        """Start every task that may run now; the caller must hold the lock."""
        if self._is_closed:
            return
        if self._unconfirmed and not self._waiting:
            self._is_confirming = True
        if self._is_confirming and self._num_running == 0:
            if self._unconfirmed:
                self._start(self._unconfirmed.popleft(), is_alone=True)
            else:
                self._is_confirming = False
        while self._waiting and not self._is_confirming and self._num_running < self._num_workers:
            task = self._waiting.popleft()
            if task.future.set_running_or_notify_cancel():
                self._start(task, is_alone=self._num_workers == 1)

    def _start(self, task: _Task, *, is_alone: bool) -> None:
        self._num_running += 1
        self._executor.submit(self._run, task, is_alone)

    def _run(self, task: _Task, is_alone: bool) -> None:
        verdict, error = None, None
        try:
            verdict = self.sandbox.run(task.program, self._timeout_s)
        except BaseException as caught:
            error = caught
        if verdict is not None and verdict.reason in self._timeout_reasons:
            verdict = dataclasses.replace(verdict, reason=TIMEOUT)
        with self._lock:
            must_confirm = verdict is not None and not is_alone and verdict.reason in (TIMEOUT, SANDBOX) and not self._is_closed
            if must_confirm:
                self._unconfirmed.append(task)
            self._num_running -= 1
            self._start_ready()
        if error is not None:
            task.future.set_exception(error)
        elif verdict is not None and not must_confirm:
            task.future.set_result(verdict)
