"""What goes wrong, and the exit status each kind of it has."""

EXIT_BAD_INPUT = 2
EXIT_RESUMABLE = 75


class InputError(ValueError):
    """Bad usage or input: the message says what is wrong, where, and how to mend it. Doors exit 2."""


class RefusedPromptError(InputError):
    """A model refuses one prompt; others may be answered.

    Attributes:
        finish_reason: "length" where it leaves no room for an answer, "content_filter" where it is against a policy.
    """

    def __init__(self, message: str, finish_reason: str) -> None:
        super().__init__(message)
        self.finish_reason = finish_reason


class StoppedEarlyError(Exception):
    """Work stopped before its end (preemption, budget); the same command resumes it. Doors exit 75."""
