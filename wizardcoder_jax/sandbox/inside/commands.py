"""A program of another language: written to a file, then compiled and run by commands, each confined."""

import contextlib
import os
import re
import secrets
import select
import socket
import stat
import time

from .confine import Job, Place, start

_TAIL_BYTES = 4000
_ERROR = re.compile(
    r"^\W*(?:Uncaught |Exception in thread \S+ |PHP Fatal error: +|Fatal error: +)*(?:[\w.]+\.)?(\w*(?:Error|Exception))\b",
    re.M,
)
_ASSERTION = re.compile(r"AssertionError|[Aa]ssert(?:ion)?\b.{0,400}\bfail|panicked at.{0,200}assert|--- FAIL", re.S)


def run(
    steps: list[dict], file: str, footer: str | None, program: bytes | bytearray, place: Place, job: Job, folder: str
) -> tuple[str, str]:
    """(reason, detail) of compiling and running a program.

    Args:
        steps: {"command": [...], "compiles": bool}, in order.
        file: the program's name.
        footer: a line that prints NONCE at the program's end, for languages in which the end of the file is run last.
        program: the source.
        place: see there.
        job: see there.
        folder: the work folder, where the commands run.
    """
    nonce = secrets.token_hex(16)
    if footer is not None:
        program += b"\n" + footer.replace("NONCE", nonce).encode() + b"\n"
    path = os.path.join(folder, file)
    with open(path, "wb") as sink:
        sink.write(program)
    for owned in (folder, path):
        if job.uid:
            with contextlib.suppress(PermissionError):  # in a namespace without that right the folder is everybody's
                os.chown(owned, job.uid, job.uid)
    os.chmod(path, 0o644)
    said = ""
    for step in steps:
        status, said = _run_step(step["command"], place, job, folder)
        if status:
            return _failure(step["compiles"], status, said)
        _make_executable(folder)
    if footer is not None and nonce not in said:
        return "exit", "exited before the test ended"
    return "passed", ""


def _failure(compiles: bool, status: int, said: str) -> tuple[str, str]:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    detail = next((line for line in lines if "rror" in line), lines[-1] if lines else f"exit status {status}")
    if compiles or "SyntaxError" in said or "Parse error" in said:
        return "syntax", detail
    if _ASSERTION.search(said):
        return "assertion", detail
    if "OutOfMemoryError" in said or "out of memory" in said:
        return "memory", detail
    found = _ERROR.search(said)
    if found:
        return f"exception:{found[1]}", detail
    return "exit", f"exit status {status}: {detail}" if status > 0 else f"killed by signal {-status}"


def _run_step(command: list[str], place: Place, job: Job, folder: str) -> tuple[int, str]:
    """(exit status, or minus the signal; the end of what it printed).

    A fork a step: the first process of a namespace ends it, and one process can make but one.
    """
    ours, theirs = socket.socketpair()
    middle = os.fork()
    if middle == 0:
        try:
            pid = start(lambda fd: _execute(command, fd), place, job, folder, theirs.fileno())
            theirs.close()
            ours.close()
            _, status = os.waitpid(pid, 0)
            os._exit(128 + (status & 127) if status & 127 else status >> 8)
        finally:
            os._exit(126)
    theirs.close()
    tail = b""
    while True:
        ended, status = os.waitpid(middle, os.WNOHANG)
        while select.select([ours], [], [], 0 if ended else 0.02)[0]:
            chunk = ours.recv(1 << 16)
            if not chunk:
                time.sleep(0 if ended else 0.005)
                break
            tail = (tail + chunk)[-_TAIL_BYTES:]
            if ended and len(chunk) < 1 << 16:
                break
        if ended:
            break
    ours.close()
    code = os.waitstatus_to_exitcode(status)
    return (128 - code if code > 128 else code), tail.decode("utf-8", "replace")


def _execute(command: list[str], fd: int) -> None:
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    os.execv(command[0], command)


def _make_executable(folder: str) -> None:
    """What a compiler wrote may be run; some cannot say so themselves, where changing modes is refused to them."""
    path = os.path.join(folder, "program")
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                os.fchmod(fd, 0o755)
        finally:
            os.close(fd)
