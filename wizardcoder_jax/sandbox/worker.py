"""One zygote, as its user sees it: gives it jobs, one at a time."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import weakref
from typing import Any

from wizardcoder_jax.sandbox.inside import wire

_SLACK_S = 30.0  # beyond a job's wall limit: then the zygote itself is given up
_MAX_REPLY_BYTES = 1 << 16


class Lost(Exception):  # noqa: N818 (what became of the zygote)
    """The zygote is gone or does not answer; says what it said last."""


class Worker:
    """A zygote process.

    Args:
        command: makes the command from the number of the control socket.
        environment: of the zygote.
    """

    def __init__(self, command: Any, environment: dict[str, str]) -> None:
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
        self._end = weakref.finalize(self, _end, self._process, self._control)

    def run(self, job: dict[str, Any], header: dict[str, Any], candidate: bytes, test: bytes) -> dict[str, Any]:
        """The verdict on one job: {"reason", "detail"} and perhaps {"cannot_cross"}.

        Args:
            job: settings, see inside.confine.Job.
            header: what the tester is told, see inside.tester.
            candidate: source.
            test: source; sent once the candidate has been forked.

        Raises:
            Lost: see there.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._tell(json.dumps(job).encode(), theirs.fileno())
            ours.settimeout(job["wall_s"] + _SLACK_S)
            self._control.settimeout(job["wall_s"] + _SLACK_S)
            verdict = _converse(ours, header, candidate, test)
        limit = self._reply()
        return limit or verdict or {"reason": "sandbox", "detail": "the tester ended without a verdict"}

    def _tell(self, message: bytes, fd: int) -> None:
        try:
            socket.send_fds(self._control, [message], [fd])
        except OSError as error:
            raise Lost(self._last_words() or str(error)) from error

    def _reply(self) -> dict[str, Any]:
        try:
            reply = self._control.recv(_MAX_REPLY_BYTES)
        except TimeoutError as error:
            raise Lost("the zygote does not answer") from error
        except OSError as error:
            raise Lost(self._last_words() or str(error)) from error
        if not reply:
            raise Lost(self._last_words() or "the zygote ended")
        return json.loads(reply)

    def _last_words(self) -> str:
        """The last line on standard error of a zygote that has ended."""
        assert self._process.stderr is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
            os.set_blocking(self._process.stderr.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                said = os.read(self._process.stderr.fileno(), 1 << 16).decode("utf-8", "replace").strip()
                return (said.splitlines() or [""])[-1]
        return ""

    def kill(self) -> None:
        """Ends the zygote and with it whatever it runs; may be called from another thread."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the zygote and waits for it."""
        self._end()


def _converse(ours: socket.socket, header: dict[str, Any], candidate: bytes, test: bytes) -> dict[str, Any] | None:
    """Tells the tester and hears its verdict; None where it ends without one."""
    try:
        wire.send_json(ours, header)
        wire.send(ours, candidate)
        said = wire.receive_json(ours)
        if said != "ready":  # it failed before
            return said
        wire.send(ours, test)
        return wire.receive_json(ours)
    except (wire.Gone, OSError, ValueError):
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
