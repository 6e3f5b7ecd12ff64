"""The description of a program to run, which `benchmarks` and `evol_instruct` build and `sandbox` runs."""

import dataclasses
import hashlib

PYTHON = "python"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """An untrusted candidate and the trusted test that follows it.

    A Python program passes if `candidate` runs to its end as the body of a module and `test` then runs to its end, both
    without an exception. With an entry point the two run in separate processes: the test's namespace holds a proxy under
    that name, and nothing the candidate does to its own interpreter reaches the test. Without an entry point they run as
    one source text in one interpreter, and the verdict is marked forgeable. The same happens if the test passes the
    candidate a value that cannot be sent to another process, such as an instance of a class of its own.

    In any other language, `candidate + test` is the whole source file. The program passes if its toolchain exits with status 0.
    """

    candidate: str
    test: str
    entry_point: str | None = None
    helpers: tuple[str, ...] = ()  # names of other functions of the candidate that the test calls
    language: str = PYTHON  # PYTHON, or a key of sandbox.toolchains.LANGUAGES
    python: str | None = None  # path of the interpreter for the program; None: the current interpreter

    def digest(self) -> str:
        """Return a hash of every field, used as the key of the program's verdict."""
        parts = (self.candidate, self.test, self.entry_point or "", "\0".join(self.helpers), self.language, self.python or "")
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in encoded)).hexdigest()
