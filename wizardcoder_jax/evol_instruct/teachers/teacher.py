"""The interface of all teachers: chat messages in, one completion out."""

from collections.abc import Sequence
from typing import Protocol

from wizardcoder_jax.llm_client.completion import Completion, Message


class Teacher(Protocol):
    """A model that answers chat messages. All callers must be in the same event loop."""

    @property
    def identity(self) -> str:
        """Name that distinguishes this teacher from others in the ledger's call keys. Contains no secrets."""
        ...

    async def complete(self, messages: Sequence[Message], draw: str) -> Completion:
        """Answer `messages`.

        Args:
            messages: the chat so far.
            draw: string that distinguishes repeated requests with equal messages; a local teacher seeds its sampling with it.

        Raises:
            InputError: the request failed and can never succeed.
            StoppedEarlyError: the request failed repeatedly, but may succeed later.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections. The teacher must not be used afterwards."""
        ...
