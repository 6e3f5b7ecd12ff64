"""What goes into the sandbox and what comes out."""

import dataclasses
import hashlib

PASSED = "passed"
EXCEPTION = "exception"  # followed by ":<Type>"
TIMEOUT = "timeout"
SANDBOX = "sandbox"


PYTHON = "python"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """An untrusted candidate and the trusted test that follows it.

    A Python program passes when `candidate` has run as the body of a module, and then `test` to its end, without an exception.
    With an entry point the two run in separate processes: the test's namespace holds a proxy under that name, and what the
    candidate does to its own interpreter does not reach the test. Without one they are run as one source text in one
    interpreter, and the verdict is marked forgeable; so it is where the test hands the candidate what cannot be handed over,
    e.g. an instance of a class of its own.

    In any other language `candidate + test` is the whole file, and passes when its toolchain ends with status 0.
    """

    candidate: str
    test: str
    entry_point: str | None = None
    helpers: tuple[str, ...] = ()  # further names of the candidate that the test calls
    language: str = PYTHON  # or one of toolchains.LANGUAGES
    python: str | None = None  # path of another interpreter to run it with

    def digest(self) -> str:
        """A key for a verdict: changes with every part."""
        parts = (self.candidate, self.test, self.entry_point or "", "\0".join(self.helpers), self.language, self.python or "")
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in encoded)).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a program ended."""

    reason: str  # passed, assertion, exception:<Type>, syntax, timeout, memory, exit or sandbox
    detail: str  # a short text for people, e.g. the exception's message
    seconds: float  # wall clock
    forgeable: bool = False  # the program had the means to fake a pass: it shared an interpreter, or a process, with its test

    @property
    def passed(self) -> bool:
        """Whether the program ran to its end and its test held."""
        return self.reason == PASSED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Amounts a program may use."""

    memory_bytes: int = 4 << 30  # resident, of all its processes together; and the address space of one that runs Python
    file_bytes: int = 64 << 20  # of one file
    tmp_bytes: int = 128 << 20  # of its work folder, and of /dev/shm
    num_processes: int = 64  # threads included
    num_files: int = 256  # open descriptors of a process


def wall_limit_s(timeout_s: float) -> float:
    """Wall-clock seconds after which a program is killed whatever CPU time it used: generous, for loaded machines."""
    return 5 * timeout_s + 10
