"""What goes into the sandbox and what comes out."""

import dataclasses
import hashlib

PASSED = "passed"
ASSERTION = "assertion"
EXCEPTION = "exception"  # followed by ":<Type>"
SYNTAX = "syntax"
TIMEOUT = "timeout"
MEMORY = "memory"
EXIT = "exit"
SANDBOX = "sandbox"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """An untrusted candidate and the trusted test that follows it."""

    candidate: str
    test: str
    entry_point: str | None = None  # Python: the tested function, where the test can call it through a proxy
    helpers: tuple[str, ...] = ()  # further names of the candidate that the test may call
    language: str = "python"  # or a language of MultiPL-E, whose file is candidate + test
    python: str | None = None  # another interpreter to run it with

    def digest(self) -> str:
        """A key for a verdict: changes with everything in the program."""
        parts = (self.candidate, self.test, self.entry_point or "", *self.helpers, self.language, self.python or "")
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in encoded)).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a program ended."""

    reason: str  # passed, assertion, exception:<Type>, syntax, timeout, memory, exit or sandbox
    detail: str  # a short text for people, e.g. the exception's message
    seconds: float  # wall clock, start of the sandbox included
    forgeable: bool = True  # candidate and test shared an interpreter, so that the candidate could fake this

    @property
    def passed(self) -> bool:
        """Whether the program ran to its end and its test held."""
        return self.reason == PASSED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Amounts a program may use; each holds for one process of it, except `tmp_bytes`, `num_processes` and wall time."""

    memory_bytes: int = 4 << 30  # address space
    file_bytes: int = 64 << 20  # of one file
    tmp_bytes: int = 128 << 20  # of /tmp and of /dev/shm, where bubblewrap can limit them
    num_processes: int = 64  # threads included
    num_files: int = 256  # open descriptors


def wall_limit_s(timeout_s: float) -> float:
    """Wall-clock seconds after which a program is killed whatever CPU time it used: generous, for loaded machines."""
    return 5 * timeout_s + 10
