"""What a teacher is: messages in, one completion out."""

from collections.abc import Sequence
from typing import Protocol

from wizardcoder_jax.clients.completion import Completion, Message


class Teacher(Protocol):
    """A model that answers; may be called from several threads."""

    @property
    def identity(self) -> str:
        """What tells this teacher from others in the ledger; holds no secret."""
        ...

    def complete(self, messages: Sequence[Message]) -> Completion:
        """Answers `messages`.

        Raises:
            InputError: the request can never succeed.
            StoppedEarlyError: it kept failing, but may succeed later.
        """
        ...

    def close(self) -> None:
        """Gives up connections; no call may follow."""
        ...
