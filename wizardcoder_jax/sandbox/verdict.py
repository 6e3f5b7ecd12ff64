"""The verdict on a program that ran in the sandbox."""

import dataclasses

PASSED = "passed"
EXCEPTION = "exception"  # followed by ":<Type>"
TIMEOUT = "timeout"
SANDBOX = "sandbox"  # the sandbox failed, not the program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a program ended."""

    reason: str  # passed, assertion, exception:<Type>, syntax, timeout, memory, exit or sandbox
    detail: str  # short explanation for humans, e.g. the message of the exception
    seconds: float  # seconds of wall-clock time
    forgeable: bool = False  # whether the program shared a process with its test, and could have faked a pass

    @property
    def passed(self) -> bool:
        """Whether the program and its test ran to the end without an exception."""
        return self.reason == PASSED
