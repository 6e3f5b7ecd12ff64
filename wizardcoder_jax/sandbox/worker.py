"""Controls a zygote process from outside the sandbox: sends it one job at a time, and returns the job's verdict."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import weakref
from collections.abc import Callable
from typing import Any

from wizardcoder_jax.sandbox.inside import wire

_SLACK_S = 30.0  # seconds after a job's wall-clock limit until the zygote itself counts as lost
_MAX_REPLY_BYTES = 1 << 16


class WorkerLostError(Exception):
    """The zygote has exited or does not answer; the message is the last line that it printed, if any."""


class Worker:
    """A zygote process, and the control socket to it.

    Args:
        command: returns the command that starts the zygote, given the file descriptor of the zygote's control socket.
        environment: environment variables of the zygote.
    """

    def __init__(self, command: Callable[[int], list[str]], environment: dict[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._finalize = weakref.finalize(self, _end, self._process, self._control)

    def run(self, job: dict[str, Any], header: dict[str, Any], candidate: bytes, test: bytes) -> dict[str, Any]:
        """Run one job and return its verdict: {"reason", "detail"} and optionally {"cannot_cross"}.

        Args:
            job: the fields of inside.confine.Job.
            header: instructions for the tester, see inside.tester.
            candidate: source code of the candidate.
            test: source code of the test; sent only after the candidate's process has been forked.

        Raises:
            WorkerLostError: the zygote has exited or does not answer.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._send(json.dumps(job).encode(), theirs.fileno())
            ours.settimeout(job["wall_s"] + _SLACK_S)
            self._control.settimeout(job["wall_s"] + _SLACK_S)
            verdict = _talk_to_tester(ours, header, candidate, test)
        exceeded_limit = self._receive()
        return exceeded_limit or verdict or {"reason": "sandbox", "detail": "the tester ended without a verdict"}

    def kill(self) -> None:
        """End the zygote and everything it runs; may be called from another thread."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the zygote and wait for it to exit."""
        self._finalize()

    def _send(self, message: bytes, fd: int) -> None:
        try:
            socket.send_fds(self._control, [message], [fd])
        except OSError as error:
            raise WorkerLostError(self._last_line() or str(error)) from error

    def _receive(self) -> dict[str, Any]:
        try:
            reply = self._control.recv(_MAX_REPLY_BYTES)
        except TimeoutError as error:
            raise WorkerLostError("the zygote does not answer") from error
        except OSError as error:
            raise WorkerLostError(self._last_line() or str(error)) from error
        if not reply:
            raise WorkerLostError(self._last_line() or "the zygote has exited")
        return json.loads(reply)

    def _last_line(self) -> str:
        """Return the last line that the exited zygote wrote to standard error, or an empty string."""
        assert self._process.stderr is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
            os.set_blocking(self._process.stderr.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                output = os.read(self._process.stderr.fileno(), 1 << 16).decode("utf-8", "replace").strip()
                return (output.splitlines() or [""])[-1]
        return ""


def _talk_to_tester(connection: socket.socket, header: dict[str, Any], candidate: bytes, test: bytes) -> dict[str, Any] | None:
    """Send a job's sources to its tester and return the verdict, None if the tester ends without one."""
    try:
        wire.send_json(connection, header)
        wire.send(connection, candidate)
        reply = wire.receive_json(connection)
        if reply != "ready":  # the reply is already the verdict: the candidate could not be started
            return reply
        wire.send(connection, test)
        return wire.receive_json(connection)
    except (wire.ConnectionLostError, OSError, ValueError):
        return None


def _end(process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
    with contextlib.suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)
    control.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stderr is not None:
        process.stderr.close()
