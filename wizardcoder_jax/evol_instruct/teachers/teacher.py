"""What a teacher is: messages in, one completion out."""

from collections.abc import Sequence
from typing import Protocol

from wizardcoder_jax.llm_client.completion import Completion, Message


class Teacher(Protocol):
    """A model that answers, for all callers of one event loop."""

    @property
    def identity(self) -> str:
        """What tells this teacher from others in the ledger; holds no secret."""
        ...

    async def complete(self, messages: Sequence[Message], draw: str) -> Completion:
        """Answers `messages`.

        Args:
            messages: the chat so far.
            draw: names this answer among others to equal messages; what a teacher of our own draws is a function of it.

        Raises:
            InputError: the request can never succeed.
            StoppedEarlyError: it kept failing, but may succeed later.
        """
        ...

    async def aclose(self) -> None:
        """Gives up connections; no call may follow."""
        ...
