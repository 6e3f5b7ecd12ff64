"""A teacher that replays answers recorded in a file.

Each line of the file is one recorded answer:

{"messages": [...], "content": "...", "finish_reason": "stop", "usage": {"prompt_tokens": 0, "completion_tokens": 0},
"model": "..."}

Answers are looked up by their exact messages; if several records have the same messages, the first is used.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.llm_client.completion import MAX_TOKENS, Completion, Message

SHOWN_CHARS = 80


class ReplayTeacher:
    """A teacher that returns the answers recorded in `replay_file`."""

    def __init__(self, replay_file: str) -> None:
        self._file = replay_file
        self._answers: dict[str, Completion] = {}
        digest = hashlib.sha256()
        for location, entry in read_records(replay_file):
            completion = _completion(location, entry)
            digest.update(json.dumps(entry, sort_keys=True).encode())
            self._answers.setdefault(_key(entry["messages"]), completion)
        self._identity = f"replay:{digest.hexdigest()[:16]}"

    @property
    def identity(self) -> str:
        """Hash of the recorded answers, so that an edited file counts as a different teacher."""
        return self._identity

    async def complete(self, messages: Sequence[Message], draw: str) -> Completion:
        """Return the answer recorded for exactly these messages; `draw` is ignored."""
        try:
            return self._answers[_key(messages)]
        except KeyError:
            raise InputError(
                f"{self._file} has no answer to {_shorten(messages)}; record the answer, or use another teacher"
            ) from None

    async def aclose(self) -> None:
        """Do nothing: no connection is open."""


def _shorten(messages: Sequence[Message]) -> str:
    text = messages[-1]["content"]
    start, end = text[:SHOWN_CHARS], text[SHOWN_CHARS:][-SHOWN_CHARS:]
    return f"{start!r} ... {end!r}" if end else repr(start)


def _key(messages: Sequence[Message]) -> str:
    return json.dumps([[message["role"], message["content"]] for message in messages])


def _completion(location: str, entry: dict[str, Any]) -> Completion:
    messages, usage = entry.get("messages"), entry.get("usage") or {}
    if not (isinstance(messages, list) and messages and all(_is_message(message) for message in messages)):
        raise InputError(f'{location}: "messages" must be a non-empty list of objects {{"role", "content"}} with string values')
    if not isinstance(entry.get("content"), str):
        raise InputError(f'{location}: "content" must be a string, the recorded answer')
    if not (isinstance(usage, dict) and all(_is_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))):
        raise InputError(f'{location}: "usage" must be {{"prompt_tokens", "completion_tokens"}} with non-negative integers')
    if not isinstance(entry.get("finish_reason"), str | None):
        raise InputError(f'{location}: "finish_reason" must be a string such as "stop"')
    return Completion(
        text=entry["content"],
        finish_reason=entry.get("finish_reason"),
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        model=str(entry.get("model", "recorded")),
    )


def _is_count(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value <= MAX_TOKENS)


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
