"""Instruction records: {"instruction", "input" (optional), "output"}, or {"messages"} of one user and one assistant message.

Of all other keys only "seed_id" and "id" are used.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import xxhash

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.record_files import read_records


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One instruction with its response."""

    location: str  # FILE:LINE, for messages
    instruction: str
    input: str  # "" if the record has none
    output: str
    record_id: str  # decides the side of a validation split: the seed_id, else the id, else a hash of the texts


def read_examples(files: Sequence[str]) -> list[Example]:
    """Read the examples of `files` (JSONL, JSON array or Parquet, plain or gzipped), in order.

    An empty output is valid: it teaches the model to stop immediately (Code Alpaca 20k has six).

    Raises:
        InputError: a file is missing or malformed, a record has no text, or there is no example at all.
    """
    examples = [read_example(location, record) for file in files for location, record in read_records(file)]
    if not examples:
        raise InputError(f"no examples in {', '.join(files)}; each needs an 'instruction' and an 'output'")
    return examples


def read_example(location: str, record: Mapping[str, Any]) -> Example:
    """Return the example of a record; raises as `read_examples` does."""
    if "messages" in record and "instruction" not in record:
        record = {**record, **_from_messages(location, record["messages"])}
    instruction = _text(location, record, "instruction")
    if not instruction.strip():
        raise InputError(f"{location}: 'instruction' is empty; write one or remove the record")
    extra_input = _text(location, record, "input") if record.get("input") is not None else ""
    output = _text(location, record, "output")
    given_id = next((record[key] for key in ("seed_id", "id") if record.get(key) not in (None, "")), None)
    record_id = content_id(instruction, extra_input, output) if given_id is None else str(given_id)
    return Example(location=location, instruction=instruction, input=extra_input, output=output, record_id=record_id)


def _from_messages(location: str, messages: Any) -> dict[str, Any]:
    """Return instruction and output of a conversation that consists of one question and one answer."""
    turns = messages if isinstance(messages, list) and all(isinstance(turn, dict) for turn in messages) else []
    roles = [turn.get("role") for turn in turns]
    if roles != ["user", "assistant"]:
        found = ", ".join(map(str, roles)) or type(messages).__name__
        raise InputError(f"{location}: 'messages' must be one user message and one assistant message, found {found}")
    return {"instruction": turns[0].get("content"), "output": turns[1].get("content")}


def content_id(*parts: str | bytes) -> str:
    """Return an id for a record that has none: equal records have equal ids."""
    digest = xxhash.xxh3_128()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))  # otherwise "ab", "c" would equal "a", "bc"
        digest.update(content)
    return digest.hexdigest()


def _text(location: str, record: Mapping[str, Any], key: str) -> str:
    if key not in record:
        raise InputError(f"{location}: no key '{key}' (found {', '.join(map(repr, record)) or 'none'})")
    text = record[key]
    if not isinstance(text, str):
        raise InputError(f"{location}: '{key}' must be a string, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can contain half of a surrogate pair, which no tokenizer accepts
        raise InputError(f"{location}: '{key}' is not valid Unicode at character {error.start}") from error
    return text
