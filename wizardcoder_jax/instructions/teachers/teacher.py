"""What a teacher is: messages in, one completion out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

Message = Mapping[str, str]  # {"role": ..., "content": ...}, as in the OpenAI chat API


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer of a teacher.

    Attributes:
        text: what it wrote; may be empty.
        finish_reason: "stop", or "length" where the text was cut off; None where the server does not say.
        prompt_tokens: tokens of the messages; None where the server does not say.
        completion_tokens: tokens of the text; None where the server does not say.
        model: the model's own name for itself.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str


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
