"""Exceptions for expected failures, and the exit status of each."""

EXIT_BAD_INPUT = 2
EXIT_RESUMABLE = 75


class InputError(ValueError):
    """Invalid usage or input. The message names the problem, the place and the fix; commands exit with status 2."""


class RefusedPromptError(InputError):
    """A prompt that the model refuses. It may accept other prompts.

    Attributes:
        finish_reason: "length" if the prompt leaves no space for an answer, "content_filter" if it violates a policy.
    """

    def __init__(self, message: str, finish_reason: str) -> None:
        super().__init__(message)
        self.finish_reason = finish_reason


class StoppedEarlyError(Exception):
    """Work that stopped early (preemption, budget). Commands exit with status 75; running them again resumes the work."""
