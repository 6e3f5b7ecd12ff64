"""The interface of teachers: messages in, one completion out."""

from collections.abc import Sequence
from typing import Protocol

from wizardcoder_jax.llm_client.completion import Completion, Message


class Teacher(Protocol):
    """A model that answers chat messages, for all callers of one event loop."""

    @property
    def identity(self) -> str:
        """Part of the keys of its calls in the ledger, which distinguishes it from other teachers. Contains no secret."""
        ...

    async def complete(self, messages: Sequence[Message], draw: str) -> Completion:
        """Answer `messages`.

        Args:
            messages: the chat so far.
            draw: distinguishes this answer from others to equal messages; a local teacher derives its random key from it.

        Raises:
            InputError: the request can never succeed.
            StoppedEarlyError: it failed repeatedly, but may succeed later.
        """
        ...

    async def aclose(self) -> None:
        """Close connections. No call may follow."""
        ...
