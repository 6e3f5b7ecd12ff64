"""Compiles and runs a program in a language other than Python, by a sequence of commands, each of them confined."""

import contextlib
import os
import re
import secrets
import select
import socket
import stat
import time

from .confine import Job, ZygoteConfig, start

_TAIL_BYTES = 4000
_ERROR = re.compile(
    r"^\W*(?:Uncaught |Exception in thread \S+ |PHP Fatal error: +|Fatal error: +)*(?:[\w.]+\.)?(\w*(?:Error|Exception))\b",
    re.M,
)
_ASSERTION = re.compile(r"AssertionError|[Aa]ssert(?:ion)?\b.{0,400}\bfail|panicked at.{0,200}assert|--- FAIL", re.S)


def run(
    steps: list[dict], file: str, footer: str | None, program: bytes | bytearray, config: ZygoteConfig, job: Job, folder: str
) -> tuple[str, str]:
    """Compile and run a program; return (reason, detail).

    Args:
        steps: {"command": [...], "compiles": bool}, in order.
        file: name of the source file.
        footer: a line to append, which prints NONCE; it shows that the program ran to the end of the file.
        program: the source code.
        config: the settings that all jobs of the zygote share.
        job: the settings of this job.
        folder: the work folder, in which the commands run.
    """
    nonce = secrets.token_hex(16)
    if footer is not None:
        program += b"\n" + footer.replace("NONCE", nonce).encode() + b"\n"
    path = os.path.join(folder, file)
    with open(path, "wb") as sink:
        sink.write(program)
    for owned in (folder, path):
        if job.uid:
            with contextlib.suppress(PermissionError):  # bubblewrap drops this right, but its folder is writable by all
                os.chown(owned, job.uid, job.uid)
    os.chmod(path, 0o644)
    output = ""
    for step in steps:
        status, output = _run_step(step["command"], config, job, folder)
        if status:
            return _failure(step["compiles"], status, output)
        _make_executable(folder)
    if footer is not None and nonce not in output:
        return "exit", "exited before the test ended"
    return "passed", ""


def _failure(compiles: bool, status: int, output: str) -> tuple[str, str]:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    detail = next((line for line in lines if "rror" in line), lines[-1] if lines else f"exit status {status}")
    if compiles or "SyntaxError" in output or "Parse error" in output:
        return "syntax", detail
    if _ASSERTION.search(output):
        return "assertion", detail
    if "OutOfMemoryError" in output or "out of memory" in output:
        return "memory", detail
    found = _ERROR.search(output)
    if found:
        return f"exception:{found[1]}", detail
    return "exit", f"exit status {status}: {detail}" if status > 0 else f"killed by signal {-status}"


def _run_step(command: list[str], config: ZygoteConfig, job: Job, folder: str) -> tuple[int, str]:
    """Run one command; return (exit status, negative for a signal; the last bytes of the output, decoded).

    Each command has its own parent process, because a process can create only one process namespace, and this namespace ends
    together with the first process in it.
    """
    ours, theirs = socket.socketpair()
    middle = os.fork()
    if middle == 0:
        try:
            pid = start(lambda fd: _execute(command, fd), config, job, folder, theirs.fileno())
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
    """Make the compiled program executable: the compiler cannot do so if the system call filter refuses chmod."""
    path = os.path.join(folder, "program")
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                os.fchmod(fd, 0o755)
        finally:
            os.close(fd)
