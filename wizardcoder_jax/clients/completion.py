"""What is asked and what comes back."""

import dataclasses
from collections.abc import Mapping

Message = Mapping[str, str]  # {"role": ..., "content": ...}, as in the OpenAI chat API


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
