"""What goes wrong, and the exit status each kind of it has."""

EXIT_BAD_INPUT = 2
EXIT_RESUMABLE = 75


class InputError(ValueError):
    """Bad usage or input: the message says what is wrong, where, and how to mend it. Doors exit 2."""


class PromptTooLongError(InputError):
    """A prompt leaves a model no room for an answer; others may be answered."""


class StoppedEarlyError(Exception):
    """Work stopped before its end (preemption, budget); the same command resumes it. Doors exit 75."""
