"""Runs programs in the sandbox: one at a time, or many with a pool of threads."""

import contextlib
import dataclasses
import os
import queue
import re
import secrets
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO

from wizardcoder_jax.errors import InputError
from wizardcoder_jax.sandbox.bubblewrap import INSTALL_HINT, Bubblewrap, python_command
from wizardcoder_jax.sandbox.program import EXIT, SANDBOX, TIMEOUT, Limits, Program, Verdict, wall_limit_s

TIER_BUBBLEWRAP = "bubblewrap"
TIER_NONE = "none"

_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_REASON = re.compile(r"passed|assertion|syntax|memory|exit|exception:[\w\\.]{1,80}", re.ASCII)
_VERDICT_LIMIT_BYTES = 1 << 16  # far more than a verdict; a program that floods the pipe is stopped here
_NUM_UIDS = 64
_FIRST_UID, _UID_SPACE = 61_184, 4_288  # systemd's range for short-lived users: no host gives these to people
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the same verdict each time, also where the order of a set decides it
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",  # numerical libraries start a thread for each core, beyond the process limit on big hosts
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class Sandbox:
    """Runs untrusted programs; make one with `Sandbox.open`."""

    def __init__(self, bubblewrap: Bubblewrap | None, limits: Limits) -> None:
        self.tier = TIER_NONE if bubblewrap is None else TIER_BUBBLEWRAP
        self._limits = limits
        self._command = python_command(str(_BOOTSTRAP)) if bubblewrap is None else bubblewrap.command(str(_BOOTSTRAP), limits)
        self._uids: queue.SimpleQueue[int] = queue.SimpleQueue()
        first = os.getpid() * _NUM_UIDS % _UID_SPACE
        for i in range(_NUM_UIDS):
            gives_root_away = bubblewrap is not None and bubblewrap.as_root
            self._uids.put(_FIRST_UID + (first + i) % _UID_SPACE if gives_root_away else 0)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    @staticmethod
    def open(*, unsafe: bool = False, limits: Limits | None = None) -> "Sandbox":
        """A sandbox that has been seen to work.

        Args:
            unsafe: run programs without isolation.
            limits: what each program may use.

        Raises:
            InputError: programs cannot be isolated here; says what to install.
        """
        sandbox = Sandbox(None if unsafe else Bubblewrap.find(), limits or Limits())
        verdict = sandbox.run(Program(candidate="", test="import json"), timeout_s=10.0)
        if not verdict.passed:
            found = f"{verdict.reason}: {verdict.detail}"
            if unsafe:
                raise InputError(f"programs cannot be run here ({found}); check the Python installation")
            raise InputError(f"programs cannot be isolated: bubblewrap does not work here ({found}); {INSTALL_HINT}")
        return sandbox

    def run(self, program: Program, timeout_s: float) -> Verdict:
        """Runs one program.

        Args:
            program: candidate and test.
            timeout_s: CPU seconds it may take; `wall_limit_s` of it is the wall-clock limit.
        """
        start = time.monotonic()
        uid = self._uids.get()
        try:
            with tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder:
                reason, detail = self._run_in(folder, program, timeout_s, uid)
        except OSError as error:
            reason, detail = SANDBOX, f"could not be started: {error}"
        finally:
            self._uids.put(uid)
        return Verdict(reason=reason, detail=detail, seconds=round(time.monotonic() - start, 3))

    def _run_in(self, folder: str, program: Program, timeout_s: float, uid: int) -> tuple[str, str]:
        nonce = secrets.token_hex(16)
        with tempfile.TemporaryFile() as job:
            self._write_job(job, nonce, program, timeout_s, uid)
            process = subprocess.Popen(
                self._command,
                stdin=job,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=_ENVIRONMENT,
                start_new_session=True,
            )
        with self._lock:
            self._running.add(process)
            if self._stopped:
                _kill(process)
        try:
            return _watch(process, nonce, timeout_s)
        finally:
            with self._lock:  # from here on no other thread kills it: its id may become another's once it is reaped
                self._running.discard(process)
            _kill(process)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def _write_job(self, job: IO[bytes], nonce: str, program: Program, timeout_s: float, uid: int) -> None:
        limits = self._limits
        processes = limits.num_processes if self.tier == TIER_BUBBLEWRAP else 0  # else all processes of the user count
        numbers = (uid, round(timeout_s * 1000), limits.memory_bytes, limits.file_bytes, processes, limits.num_files)
        job.write(" ".join([nonce, *map(str, numbers)]).encode() + b"\n")
        job.write((program.candidate + program.test).encode("utf-8", "surrogatepass"))
        job.seek(0)

    def run_all(self, programs: Sequence[Program], timeout_s: float, num_workers: int) -> Iterator[tuple[int, Verdict]]:
        """Runs programs side by side and yields (index, verdict) as they end.

        A timeout (or a sandbox that failed) beside other programs is not believed: such programs run again at the end,
        alone, and only that verdict counts.
        """
        doubtful: list[int] = []
        executor = ThreadPoolExecutor(max_workers=num_workers)
        try:
            futures = {executor.submit(self.run, program, timeout_s): i for i, program in enumerate(programs)}
            for future in as_completed(futures):
                index, verdict = futures[future], future.result()
                if verdict.reason in (TIMEOUT, SANDBOX) and num_workers > 1:
                    doubtful.append(index)
                else:
                    yield index, verdict
        except BaseException:  # the caller stops early, or Ctrl-C: nothing stays behind
            self.stop()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
        for index in sorted(doubtful):
            yield index, self.run(programs[index], timeout_s)

    def stop(self) -> None:
        """Kills whatever is running; this sandbox runs nothing any more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)


@dataclasses.dataclass
class _Report:
    """What has come through the verdict pipe."""

    nonce: str
    received: bytes = b""

    def started(self) -> bool:
        return f"{self.nonce} started\n".encode() in self.received

    def verdict(self) -> tuple[str, str] | None:
        for line in self.received.split(b"\n")[:-1]:
            word, _, rest = line.decode("ascii", "replace").partition(" ")
            reason, _, detail = rest.partition(" ")
            if word == self.nonce and _REASON.fullmatch(reason):
                return reason, detail
        return None


def _watch(process: subprocess.Popen[bytes], nonce: str, timeout_s: float) -> tuple[str, str]:
    """Waits for the verdict or the end of the process; (reason, detail)."""
    assert process.stdout is not None and process.stderr is not None
    report = _Report(nonce)
    deadline = time.monotonic() + wall_limit_s(timeout_s)
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN | select.POLLHUP)
    while len(report.received) < _VERDICT_LIMIT_BYTES:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return TIMEOUT, "wall-clock limit"
        chunk = os.read(process.stdout.fileno(), _VERDICT_LIMIT_BYTES)
        report.received += chunk
        verdict = report.verdict()
        if verdict is not None:
            return verdict
        if not chunk:
            return _without_verdict(process, report, deadline, timeout_s)
    return EXIT, "flooded the verdict pipe"


def _without_verdict(process: subprocess.Popen[bytes], report: _Report, deadline: float, timeout_s: float) -> tuple[str, str]:
    """What happened to a process that closed the verdict pipe without a verdict."""
    assert process.stderr is not None
    status = _exit_status(process, deadline)
    if status is None:
        return TIMEOUT, "wall-clock limit"
    if not report.started():
        os.set_blocking(process.stderr.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            said = os.read(process.stderr.fileno(), 2000).decode("utf-8", "replace").strip()
            return SANDBOX, (said.splitlines() or ["ended before the program started"])[-1]
        return SANDBOX, "ended before the program started"
    seconds_run = time.monotonic() - (deadline - wall_limit_s(timeout_s))
    if status in (signal.SIGXCPU, signal.SIGPROF) or (status == signal.SIGKILL and seconds_run > timeout_s):
        return TIMEOUT, "CPU limit"
    return EXIT, f"killed by signal {status}" if status else "exited before the test ended"


def _exit_status(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """The signal that ended the process (0: none), once it ended; None at the deadline.

    The process is left to be reaped later: until then its group cannot become another's, and killing it is safe.
    """
    while True:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            break
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)
    if ended.si_code != os.CLD_EXITED:
        return ended.si_status
    return max(0, ended.si_status - 128)  # as bubblewrap passes on the signal that ended its child


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills the process group; bubblewrap's own child dies with it, and with that child all that the program started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
