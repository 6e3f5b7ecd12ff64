"""Response bodies of the OpenAI API: completions, chat completions, and the chunks of their streams.

Source: the objects `completion`, `chat.completion` and `chat.completion.chunk` in OpenAI's API reference.
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

MIN_LOGPROB = -9999.0  # value that OpenAI reports for a token of probability zero


@dataclasses.dataclass(kw_only=True)
class _PartialAnswer:
    """The part of an answer that has been generated so far."""

    text: str = ""
    num_tokens: int = 0
    finish_reason: str | None = None
    logprobs: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # entries of a chat completion, one per token
    offsets: list[int] = dataclasses.field(default_factory=list)  # offset of each token in the text, in characters
    has_started: bool = False  # whether the first chunk has been sent


class ResponseBuilder:
    """Builder of the response to one request, either as one body or as chunks of a stream.

    Args:
        parsed: the request.
        tokenizer: tokenizer of the model.
        model: name of the model.
    """

    def __init__(self, parsed: ParsedRequest, tokenizer: Tokenizer, model: str) -> None:
        self._parsed, self._tokenizer = parsed, tokenizer
        kind, prefix = ("chat.completion", "chatcmpl-") if parsed.in_chat else ("text_completion", "cmpl-")
        self._kind = kind
        self._head = {"id": prefix + secrets.token_hex(12), "created": int(time.time()), "model": model}
        self._answers = [_PartialAnswer() for _ in range(len(parsed.prompts) * parsed.num_samples)]

    @property
    def num_tokens(self) -> int:
        """Number of tokens in all answers so far."""
        return sum(answer.num_tokens for answer in self._answers)

    @property
    def usage(self) -> dict[str, int]:
        """Number of tokens in the prompts and in the answers so far, as a usage object."""
        prompt, completion = self._parsed.num_prompt_tokens, self.num_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def add(self, delta: TextDelta) -> list[dict[str, Any]]:
        """Add a piece of an answer, and return the chunks that send it in a stream."""
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
        """Return the additional last chunk of a stream, sent if the request asks for usage."""
        return {**self._chunk_head(), "choices": [], "usage": self.usage}

    def full_response(self) -> dict[str, Any]:
        """Return the complete response of a request that is not streamed."""
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
        """Append a piece to its answer. Return the log-probability entries (chat format) and offsets of the piece's tokens."""
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
    """Return the text of a token or, if its bytes are not complete characters, OpenAI's notation for the bytes."""
    content = bytes(entry["bytes"])
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
