"""Chat messages, completions and upper bounds on their token counts."""

import dataclasses
from collections.abc import Mapping, Sequence

Message = Mapping[str, str]  # {"role": ..., "content": ...}, as in the OpenAI chat API

MAX_TOKENS = 2**31 - 1  # maximum number of tokens of a prompt or answer; a larger count from a server is invalid
TOKENS_PER_MESSAGE = 16  # upper bound on the tokens that a chat template adds around one message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer of a model.

    Attributes:
        text: the answer; may be empty.
        finish_reason: "stop", "length" if the text was cut off, or another reason; None if the server does not report one.
        prompt_tokens: number of tokens in the prompt; None if the server does not report it.
        completion_tokens: number of tokens in the text; None if the server does not report it.
        model: name of the model, as reported by the server.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str

    @property
    def num_tokens(self) -> int | None:
        """Number of tokens in the prompt and the text together; None if the server does not report both."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


def max_prompt_tokens(messages: Sequence[Message] | str) -> int:
    """Return an upper bound on the number of tokens in a prompt: its UTF-8 bytes, plus the tokens that a chat template adds.

    Args:
        messages: chat messages, or a plain prompt.
    """
    if isinstance(messages, str):
        return len(messages.encode("utf-8", "replace")) + 1  # 1 for the beginning-of-text token
    num_bytes = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
    return num_bytes + TOKENS_PER_MESSAGE * len(messages)
