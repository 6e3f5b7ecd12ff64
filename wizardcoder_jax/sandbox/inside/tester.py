"""One job, in a process of its own: starts the candidate, then reads the test and runs it; the candidate never has it.

Over the job's connection come a header and the candidate's source; then `ready` is said, the test comes, and the verdict is
said: {"reason", "detail"}, or {"cannot_cross"} where the test gives the candidate what cannot be given.
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
from .channel import Broken, CannotCross, Channel
from .confine import BUBBLEWRAP, Job, Place, drop_capabilities, end_with_parent, hide, lower, own_folders, start

_RECURSION_LIMIT = 5000  # a result of the greatest depth, decoded below a test of some depth
_WAIT_FOR_EXIT_S = 2.0


def run(connection: socket.socket, place: Place, job: Job, folder: str) -> NoReturn:
    """Runs the job and ends this process."""
    try:
        hide()
        end_with_parent()
        if place.tier == BUBBLEWRAP:
            own_folders(place)
        header, source = wire.receive_json(connection), wire.receive(connection)
        mode = {"split": _split, "whole": _whole, "commands": _commands}[header["mode"]]
        mode(connection, header, source, place, job, folder)
    except wire.Gone:
        pass
    except BaseException as error:
        _say(connection, "sandbox", f"{type(error).__name__}: {error}")
    os._exit(0)


def _say(connection: socket.socket, reason: str, detail: str, **more: Any) -> NoReturn:
    """Gives the verdict and ends this process, whatever the test would have caught."""
    try:
        wire.send_json(connection, {"reason": reason, "detail": detail[: candidate.MAX_DETAIL_CHARS], **more})
    except wire.Gone:
        pass
    finally:
        os._exit(0)


def _split(connection: socket.socket, header: dict, source: bytearray, place: Place, job: Job, folder: str) -> None:
    names = tuple(header["names"])
    ours, theirs = socket.socketpair()
    pid = start(lambda fd: candidate.answer(source, names, fd), place, job, folder, theirs.fileno())
    theirs.close()
    if place.tier == BUBBLEWRAP:
        drop_capabilities()
    lower(resource.RLIMIT_AS, place.memory_bytes)
    wire.send_json(connection, "ready")
    test = wire.receive(connection)
    sys.setrecursionlimit(_RECURSION_LIMIT)
    reason, detail = _tested(_Watched(connection, pid, ours), names, test)
    _say(connection, reason, detail)


class _Watched(Channel):
    """The tester's end: whatever goes wrong with it is the verdict, which no `except` of the test can catch."""

    def __init__(self, connection: socket.socket, pid: int, channel: socket.socket) -> None:
        super().__init__(channel, may_export=_is_function, operations=("call",))
        self._verdict, self._pid, self._started = connection, pid, False

    def _receive(self) -> bytearray:
        frame = super()._receive()
        if not frame and not self._started:
            _say(self._verdict, "sandbox", self._connection.recv(1000).decode(errors="replace"))
        self._started = True
        return frame

    def ask(self, *args: Any, **kwargs: Any) -> Any:
        """See Channel; does not return where the candidate is gone."""
        try:
            return super().ask(*args, **kwargs)
        except Broken as error:
            _say(self._verdict, "exit", how_it_ended(self._pid) or str(error))
        except CannotCross as error:
            _say(self._verdict, "sandbox", f"an argument of the test: {error}", cannot_cross=True)


def _is_function(value: Any) -> bool:
    kinds = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.BuiltinMethodType, type)
    return isinstance(value, kinds) and value not in (sys.exit, os._exit)


def _tested(channel: Channel, names: tuple[str, ...], test: bytearray) -> tuple[str, str]:
    """(reason, detail) of loading the candidate and running the test."""
    try:
        what, value = channel.proxy(0)()
        if what != "loaded" or type(value) is not dict:
            return (what if what in ("syntax", "memory") else "exit"), str(value)
        namespace: dict[str, Any] = {name: value[name] for name in names if name in value}
        code, failure = candidate.compiled(test)
        if code is None:
            return failure
        exec(code, namespace)
    except BaseException as error:
        error.__traceback__ = None
        return candidate.reason_of(error)
    return "passed", ""


def _whole(connection: socket.socket, header: dict, source: bytearray, place: Place, job: Job, folder: str) -> None:
    wire.send_json(connection, "ready")
    program, nonce = source + wire.receive(connection), secrets.token_hex(16)
    ours, theirs = socket.socketpair()
    pid = start(lambda fd: candidate.run_whole(program, nonce, fd), place, job, folder, theirs.fileno())
    theirs.close()
    try:
        frame = wire.receive(ours)
    except wire.Gone:
        _say(connection, "exit", how_it_ended(pid) or "closed the verdict's connection")
    if not frame.startswith(nonce.encode()):
        if not frame:  # an empty frame comes before anything untrusted ran
            _say(connection, "sandbox", ours.recv(1000).decode(errors="replace"))
        _say(connection, "exit", "wrote to the verdict's connection")
    reason, detail = wire.json.loads(frame[len(nonce) :])
    _say(connection, reason, detail)


def _commands(connection: socket.socket, header: dict, source: bytearray, place: Place, job: Job, folder: str) -> None:
    wire.send_json(connection, "ready")
    program = source + wire.receive(connection)
    reason, detail = commands.run(header["steps"], header["file"], header.get("footer"), program, place, job, folder)
    _say(connection, reason, detail)


def how_it_ended(pid: int) -> str:
    """A few words on how a process ended; empty where it runs on."""
    deadline = time.monotonic() + _WAIT_FOR_EXIT_S
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return f"killed by signal {status & 127}" if status & 127 else "exited before the test ended"
        time.sleep(0.002)
    return ""
