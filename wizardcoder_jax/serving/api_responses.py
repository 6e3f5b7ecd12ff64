"""Responses of OpenAI's API: a completion, a chat completion, and the chunks of their streams.

Source: OpenAI's API reference, the objects `completion`, `chat.completion` and `chat.completion.chunk`.
"""

import dataclasses
import math
import secrets
import time
from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.inference.request import Logprob
from wizardcoder_jax.serving.request_parsing import ParsedRequest
from wizardcoder_jax.serving.streaming import TextDelta

MIN_LOGPROB = -9999.0  # what OpenAI reports for a token of probability zero


@dataclasses.dataclass(kw_only=True)
class _PartialAnswer:
    """An answer as far as it has been generated."""

    text: str = ""
    num_tokens: int = 0
    finish_reason: str | None = None
    logprobs: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # as in a chat completion
    offsets: list[int] = dataclasses.field(default_factory=list)  # of each token in the text
    has_started: bool = False  # whether its first chunk has been sent


class ResponseBuilder:
    """The response to one request, as a whole or in chunks.

    Args:
        parsed: the request.
        tokenizer: of the model.
        model: the name of the model.
    """

    def __init__(self, parsed: ParsedRequest, tokenizer: Tokenizer, model: str) -> None:
        self._parsed, self._tokenizer = parsed, tokenizer
        kind, prefix = ("chat.completion", "chatcmpl-") if parsed.in_chat else ("text_completion", "cmpl-")
        self._kind = kind
        self._head = {"id": prefix + secrets.token_hex(12), "created": int(time.time()), "model": model}
        self._answers = [_PartialAnswer() for _ in range(len(parsed.prompts) * parsed.num_samples)]

    @property
    def num_tokens(self) -> int:
        """Tokens of all answers so far."""
        return sum(answer.num_tokens for answer in self._answers)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of the prompts, and of the answers so far."""
        prompt, completion = self._parsed.num_prompt_tokens, self.num_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def add(self, delta: TextDelta) -> list[dict[str, Any]]:
        """Add a piece of an answer, and return the chunks that transmit it in a stream."""
        answer = self._answers[delta.index]
        entries, offsets = self._record(answer, delta)
        is_empty = not (delta.text or entries or delta.finish_reason)
        if not self._parsed.in_chat:
            logprobs = self._completion_logprobs(entries, offsets) if self._parsed.num_top is not None else None
            return [] if is_empty else [self._chunk(delta, {"text": delta.text, "logprobs": logprobs})]
        first = {"role": "assistant", "content": ""} if not answer.has_started else None
        answer.has_started = True
        logprobs = {"content": entries, "refusal": None} if self._parsed.num_top is not None else None
        content = {"content": delta.text} if delta.text else {}
        chunks = [self._chunk(delta, {"delta": first, "logprobs": None}, is_last=False)] if first else []
        return chunks if is_empty else [*chunks, self._chunk(delta, {"delta": content, "logprobs": logprobs})]

    def usage_chunk(self) -> dict[str, Any]:
        """Return the chunk that follows the last one if the request asks for its usage."""
        return {**self._chunk_head(), "choices": [], "usage": self.usage}

    def full_response(self) -> dict[str, Any]:
        """Return the response without streaming."""
        choices = [self._choice(index, answer) for index, answer in enumerate(self._answers)]
        return {**self._head, "object": self._kind, "choices": choices, "usage": self.usage}

    def _choice(self, index: int, answer: _PartialAnswer) -> dict[str, Any]:
        has_logprobs = self._parsed.num_top is not None
        choice: dict[str, Any] = {"index": index, "finish_reason": answer.finish_reason}
        if not self._parsed.in_chat:
            logprobs = self._completion_logprobs(answer.logprobs, answer.offsets) if has_logprobs else None
            return {**choice, "text": answer.text, "logprobs": logprobs}
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        return {
            **choice,
            "message": message,
            "logprobs": {"content": answer.logprobs, "refusal": None} if has_logprobs else None,
        }

    def _chunk(self, delta: TextDelta, content: dict[str, Any], *, is_last: bool = True) -> dict[str, Any]:
        reason = delta.finish_reason if is_last else None
        chunk = {**self._chunk_head(), "choices": [{"index": delta.index, **content, "finish_reason": reason}]}
        return {**chunk, "usage": None} if self._parsed.include_usage else chunk

    def _chunk_head(self) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk" if self._parsed.in_chat else self._kind}

    def _record(self, answer: _PartialAnswer, delta: TextDelta) -> tuple[list[dict[str, Any]], list[int]]:
        """Add a piece to its answer; return its log-probabilities as in a chat completion, and the offsets of its tokens."""
        entries, offsets = [], []
        for token, logprob in zip(delta.tokens, delta.logprobs, strict=False):
            entries.append(self._entry(token, logprob))
            offset = answer.offsets[-1] + len(answer.logprobs[-1]["token"]) if answer.offsets else 0
            offsets.append(offset)
            answer.logprobs.append(entries[-1])
            answer.offsets.append(offset)
        answer.text += delta.text
        answer.num_tokens += len(delta.tokens)
        answer.finish_reason = delta.finish_reason
        return entries, offsets

    def _entry(self, token: int, logprob: Logprob) -> dict[str, Any]:
        top = [self._token_entry(other, value) for other, value in logprob.top[: self._parsed.num_top or 0]]
        return {**self._token_entry(token, logprob.logprob), "top_logprobs": top}

    def _token_entry(self, token: int, logprob: float) -> dict[str, Any]:
        content = self._tokenizer.token_bytes(token)
        value = MIN_LOGPROB if math.isnan(logprob) else min(0.0, max(MIN_LOGPROB, logprob))
        return {"token": content.decode("utf-8", "replace"), "bytes": list(content), "logprob": value}

    def _completion_logprobs(self, entries: Sequence[dict[str, Any]], offsets: Sequence[int]) -> dict[str, Any]:
        tops = [{_token_key(top): top["logprob"] for top in [*entry["top_logprobs"], entry]} for entry in entries]
        return {
            "tokens": [_token_key(entry) for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": tops if self._parsed.num_top else None,
            "text_offset": list(offsets),
        }


def _token_key(entry: dict[str, Any]) -> str:
    """Return the text of a token, or its bytes where they are not whole characters, in OpenAI's notation."""
    content = bytes(entry["bytes"])
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
