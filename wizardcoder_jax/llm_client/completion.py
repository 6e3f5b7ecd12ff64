"""What is asked and what comes back."""

import dataclasses
from collections.abc import Mapping, Sequence

Message = Mapping[str, str]  # {"role": ..., "content": ...}, as in the OpenAI chat API

MOST_TOKENS = 2**31 - 1  # of one prompt or text: who counts more cannot count
TOKENS_PER_MESSAGE = 16  # more than any chat template adds around one message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer of a model.

    Attributes:
        text: what it wrote; may be empty.
        finish_reason: "stop", or "length" where the text was cut off; None where the server does not say.
        prompt_tokens: tokens of the prompt; None where the server does not say.
        completion_tokens: tokens of the text; None where the server does not say.
        model: the model's own name for itself.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str

    @property
    def num_tokens(self) -> int | None:
        """Tokens of prompt and text together; None where the server does not say."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


def most_tokens(asked: Sequence[Message] | str) -> int:
    """The most tokens a prompt (messages, or bare text) can have: no tokenizer makes more tokens than UTF-8 bytes."""
    if isinstance(asked, str):
        return len(asked.encode("utf-8", "replace")) + 1  # a beginning-of-text token
    num_bytes = sum(len(message["content"].encode("utf-8", "replace")) for message in asked)
    return num_bytes + TOKENS_PER_MESSAGE * len(asked)
