"""The tester of one job, a separate process: starts the candidate, then receives the test and runs it.

The candidate never has access to the test. Over the job's connection the tester receives a header and the candidate's source,
sends "ready", receives the test, and sends the verdict: {"reason", "detail"}, and also "cannot_cross" if the test passes the
candidate a value that cannot be sent to another process.
"""

import os
import resource
import secrets
import socket
import sys
import time
import types
from typing import Any, NoReturn

from . import candidate, commands, wire
from .channel import CannotCrossError, Channel, ProtocolError
from .confine import (
    BUBBLEWRAP,
    Job,
    ZygoteConfig,
    drop_capabilities,
    end_with_parent,
    forbid_tracing,
    lower_limit,
    mount_own_folders,
    start,
)

_RECURSION_LIMIT = 5000  # enough to decode the deepest possible result within a deeply nested test
_WAIT_FOR_EXIT_S = 2.0  # seconds to wait for a candidate to exit


def run(connection: socket.socket, config: ZygoteConfig, job: Job, folder: str) -> NoReturn:
    """Run the job, send its verdict and end this process."""
    try:
        forbid_tracing()
        end_with_parent()
        if config.tier == BUBBLEWRAP:
            mount_own_folders(config)
        header, source = wire.receive_json(connection), wire.receive(connection)
        mode = {"split": _run_split, "whole": _run_whole, "commands": _run_commands}[header["mode"]]
        mode(connection, header, source, config, job, folder)
    except wire.ConnectionLostError:
        pass
    except BaseException as error:
        _send_verdict(connection, "sandbox", f"{type(error).__name__}: {error}")
    os._exit(0)


def _send_verdict(connection: socket.socket, reason: str, detail: str, **more: Any) -> NoReturn:
    """Send the verdict and end this process at once, so that no `except` of the test can prevent it."""
    try:
        wire.send_json(connection, {"reason": reason, "detail": detail[: candidate.MAX_DETAIL_CHARS], **more})
    except wire.ConnectionLostError:
        pass
    finally:
        os._exit(0)


def _run_split(connection: socket.socket, header: dict, source: bytearray, config: ZygoteConfig, job: Job, folder: str) -> None:
    names = tuple(header["names"])
    ours, theirs = socket.socketpair()
    pid = start(lambda fd: candidate.answer(source, names, fd), config, job, folder, theirs.fileno())
    theirs.close()
    if config.tier == BUBBLEWRAP:
        drop_capabilities()
    lower_limit(resource.RLIMIT_AS, config.memory_bytes)
    wire.send_json(connection, "ready")
    test = wire.receive(connection)
    sys.setrecursionlimit(_RECURSION_LIMIT)
    reason, detail = _run_test(_TesterChannel(connection, pid, ours), names, test)
    _send_verdict(connection, reason, detail)


class _TesterChannel(Channel):
    """The tester's end of the channel: a failure of the channel becomes the verdict; no `except` in the test can catch it."""

    def __init__(self, connection: socket.socket, pid: int, channel: socket.socket) -> None:
        super().__init__(channel, may_export=_is_function, operations=("call",))
        self._verdict, self._pid, self._started = connection, pid, False

    def _receive(self) -> bytearray:
        frame = super()._receive()
        if not frame and not self._started:
            _send_verdict(self._verdict, "sandbox", self._connection.recv(1000).decode(errors="replace"))
        self._started = True
        return frame

    def ask(self, *args: Any, **kwargs: Any) -> Any:
        """Request an operation as Channel does; if the channel fails, send a verdict and end this process."""
        try:
            return super().ask(*args, **kwargs)
        except ProtocolError as error:
            _send_verdict(self._verdict, "exit", describe_exit(self._pid) or str(error))
        except CannotCrossError as error:
            _send_verdict(self._verdict, "sandbox", f"an argument of the test: {error}", cannot_cross=True)


def _is_function(value: Any) -> bool:
    kinds = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.BuiltinMethodType, type)
    return isinstance(value, kinds) and value not in (sys.exit, os._exit)


def _run_test(channel: Channel, names: tuple[str, ...], test: bytearray) -> tuple[str, str]:
    """Load the candidate and run the test; return (reason, detail)."""
    try:
        outcome, value = channel.proxy(0)()
        if outcome != "loaded" or type(value) is not dict:
            return (outcome if outcome in ("syntax", "memory") else "exit"), str(value)
        namespace: dict[str, Any] = {name: value[name] for name in names if name in value}
        code, failure = candidate.compiled(test)
        if code is None:
            return failure
        exec(code, namespace)
    except BaseException as error:
        error.__traceback__ = None
        return candidate.reason_of(error)
    return "passed", ""


def _run_whole(connection: socket.socket, header: dict, source: bytearray, config: ZygoteConfig, job: Job, folder: str) -> None:
    wire.send_json(connection, "ready")
    program, nonce = source + wire.receive(connection), secrets.token_hex(16)
    ours, theirs = socket.socketpair()
    pid = start(lambda fd: candidate.run_whole(program, nonce, fd), config, job, folder, theirs.fileno())
    theirs.close()
    try:
        frame = wire.receive(ours)
    except wire.ConnectionLostError:
        _send_verdict(connection, "exit", describe_exit(pid) or "closed the verdict's connection")
    if not frame.startswith(nonce.encode()):
        if not frame:  # an empty frame reports a failed confinement, before untrusted code has run
            _send_verdict(connection, "sandbox", ours.recv(1000).decode(errors="replace"))
        _send_verdict(connection, "exit", "wrote to the verdict's connection")
    reason, detail = wire.json.loads(frame[len(nonce) :])
    _send_verdict(connection, reason, detail)


def _run_commands(
    connection: socket.socket, header: dict, source: bytearray, config: ZygoteConfig, job: Job, folder: str
) -> None:
    wire.send_json(connection, "ready")
    program = source + wire.receive(connection)
    reason, detail = commands.run(header["steps"], header["file"], header.get("footer"), program, config, job, folder)
    _send_verdict(connection, reason, detail)


def describe_exit(pid: int) -> str:
    """Describe how a process ended; return an empty string if it is still running."""
    deadline = time.monotonic() + _WAIT_FOR_EXIT_S
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return f"killed by signal {status & 127}" if status & 127 else "exited before the test ended"
        time.sleep(0.002)
    return ""
