"""Messages, completions and bounds on their tokens."""

import dataclasses
from collections.abc import Mapping, Sequence

Message = Mapping[str, str]  # {"role": ..., "content": ...}, as in the OpenAI chat API

MAX_TOKENS = 2**31 - 1  # of one prompt or text; a larger reported count is invalid
TOKENS_PER_MESSAGE = 16  # more than any chat template adds around one message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer of a model.

    Attributes:
        text: the answer; may be empty.
        finish_reason: "stop", or "length" if the text was cut off; None if the server does not report it.
        prompt_tokens: tokens of the prompt; None if the server does not report them.
        completion_tokens: tokens of the text; None if the server does not report them.
        model: the model's name as the server reports it.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str

    @property
    def num_tokens(self) -> int | None:
        """Tokens of prompt and text together; None if the server does not report them."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


def max_prompt_tokens(messages: Sequence[Message] | str) -> int:
    """Return an upper bound on the tokens of a prompt (messages, or bare text): its UTF-8 bytes, plus what templates add."""
    if isinstance(messages, str):
        return len(messages.encode("utf-8", "replace")) + 1  # the beginning-of-text token
    num_bytes = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
    return num_bytes + TOKENS_PER_MESSAGE * len(messages)
