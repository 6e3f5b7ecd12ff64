"""Answers in the forms of OpenAI's API: a completion, a chat completion, and the chunks of their streams.

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
from wizardcoder_jax.serving.streaming import Piece

LEAST_LOGPROB = -9999.0  # what OpenAI says for a token without any probability


@dataclasses.dataclass(kw_only=True)
class _Progress:
    """How far one answer is."""

    text: str = ""
    num_tokens: int = 0
    finish_reason: str | None = None
    logprobs: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # in the form of a chat
    offsets: list[int] = dataclasses.field(default_factory=list)  # of tokens in the text
    is_begun: bool = False  # its first chunk is sent


class Reply:
    """The response to one request, whole or in chunks.

    Args:
        asked: the request.
        tokenizer: of the model.
        model: its name.
    """

    def __init__(self, asked: ParsedRequest, tokenizer: Tokenizer, model: str) -> None:
        self._asked, self._tokenizer = asked, tokenizer
        kind, prefix = ("chat.completion", "chatcmpl-") if asked.in_chat else ("text_completion", "cmpl-")
        self._kind = kind
        self._head = {"id": prefix + secrets.token_hex(12), "created": int(time.time()), "model": model}
        self._answers = [_Progress() for _ in range(len(asked.prompts) * asked.num_samples)]

    @property
    def num_tokens(self) -> int:
        """Tokens of all answers so far."""
        return sum(answer.num_tokens for answer in self._answers)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of prompts and answers so far."""
        prompt, completion = self._asked.num_prompt_tokens, self.num_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        """Takes a piece down; returns the chunks that tell it."""
        answer = self._answers[piece.index]
        news = self._noted(answer, piece)
        if not self._asked.in_chat:
            logprobs = self._completion_logprobs(*news) if self._asked.num_top is not None else None
            is_told = piece.text or news[0] or piece.finish_reason
            return [self._chunk(piece, {"text": piece.text, "logprobs": logprobs})] if is_told else []
        first = {"role": "assistant", "content": ""} if not answer.is_begun else None
        answer.is_begun = True
        logprobs = {"content": news[0], "refusal": None} if self._asked.num_top is not None else None
        is_told = piece.text or (logprobs and news[0]) or piece.finish_reason
        delta = {"content": piece.text} if piece.text else {}
        chunks = [self._chunk(piece, {"delta": first, "logprobs": None}, is_last=False)] if first else []
        return [*chunks, self._chunk(piece, {"delta": delta, "logprobs": logprobs})] if is_told else chunks

    def usage_chunk(self) -> dict[str, Any]:
        """The chunk after the last, where usage is asked for."""
        return {**self._chunk_head(), "choices": [], "usage": self.usage}

    def whole(self) -> dict[str, Any]:
        """The response in one."""
        choices = [self._choice(index, answer) for index, answer in enumerate(self._answers)]
        return {**self._head, "object": self._kind, "choices": choices, "usage": self.usage}

    def _choice(self, index: int, answer: _Progress) -> dict[str, Any]:
        reported = self._asked.num_top is not None
        choice: dict[str, Any] = {"index": index, "finish_reason": answer.finish_reason}
        if not self._asked.in_chat:
            logprobs = self._completion_logprobs(answer.logprobs, answer.offsets) if reported else None
            return {**choice, "text": answer.text, "logprobs": logprobs}
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        return {**choice, "message": message, "logprobs": {"content": answer.logprobs, "refusal": None} if reported else None}

    def _chunk(self, piece: Piece, content: dict[str, Any], *, is_last: bool = True) -> dict[str, Any]:
        reason = piece.finish_reason if is_last else None
        chunk = {**self._chunk_head(), "choices": [{"index": piece.index, **content, "finish_reason": reason}]}
        return {**chunk, "usage": None} if self._asked.include_usage else chunk

    def _chunk_head(self) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk" if self._asked.in_chat else self._kind}

    def _noted(self, answer: _Progress, piece: Piece) -> tuple[list[dict[str, Any]], list[int]]:
        """The log-probabilities of a piece, in the form of a chat, and the offsets of its tokens."""
        entries, offsets = [], []
        for token, logprob in zip(piece.tokens, piece.logprobs, strict=False):
            entries.append(self._entry(token, logprob))
            before = answer.offsets[-1] + len(answer.logprobs[-1]["token"]) if answer.offsets else 0
            offsets.append(before)
            answer.logprobs.append(entries[-1])
            answer.offsets.append(before)
        answer.text += piece.text
        answer.num_tokens += len(piece.tokens)
        answer.finish_reason = piece.finish_reason
        return entries, offsets

    def _entry(self, token: int, logprob: Logprob) -> dict[str, Any]:
        likeliest = logprob.top[: self._asked.num_top or 0]
        top = [self._named(other, number) for other, number in likeliest]
        return {**self._named(token, logprob.logprob), "top_logprobs": top}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        content = self._tokenizer.token_bytes(token)
        number = LEAST_LOGPROB if math.isnan(logprob) else min(0.0, max(LEAST_LOGPROB, logprob))
        return {"token": content.decode("utf-8", "replace"), "bytes": list(content), "logprob": number}

    def _completion_logprobs(self, entries: Sequence[dict[str, Any]], offsets: Sequence[int]) -> dict[str, Any]:
        tops = [{_key(one): one["logprob"] for one in [*entry["top_logprobs"], entry]} for entry in entries]
        return {
            "tokens": [_key(entry) for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": tops if self._asked.num_top else None,
            "text_offset": list(offsets),
        }


def _key(entry: dict[str, Any]) -> str:
    """The text of a token, or its bytes where they are no whole characters (as OpenAI writes them)."""
    content = bytes(entry["bytes"])
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
