"""Reads instruction records: {"instruction", "input" (optional), "output"}, or {"messages"} with one question and one answer.

Other keys are ignored, except "seed_id" and "id".
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

    location: str  # FILE:LINE, for error messages
    instruction: str
    input: str  # "" if the record has none
    output: str
    record_id: str  # id that decides the side of a validation split: "seed_id", else "id", else a content hash


def read_examples(files: Sequence[str]) -> list[Example]:
    """Read the examples of `files` (JSONL, JSON array or Parquet, plain or gzipped), in order.

    An empty output is valid: it teaches the model to stop immediately (Code Alpaca 20k has six).

    Raises:
        InputError: a file is missing or malformed, a record is invalid, or there are no records.
    """
    examples = [read_example(location, record) for file in files for location, record in read_records(file)]
    if not examples:
        raise InputError(f"no examples in {', '.join(files)}; each record needs an 'instruction' and an 'output'")
    return examples


def read_example(location: str, record: Mapping[str, Any]) -> Example:
    """Return the example in a record.

    Raises:
        InputError: a key is missing, or a value is not valid text.
    """
    if "messages" in record and "instruction" not in record:
        record = {**record, **_from_messages(location, record["messages"])}
    instruction = _text(location, record, "instruction")
    if not instruction.strip():
        raise InputError(f"{location}: 'instruction' is empty; add an instruction or remove the record")
    extra_input = _text(location, record, "input") if record.get("input") is not None else ""
    output = _text(location, record, "output")
    given_id = next((record[key] for key in ("seed_id", "id") if record.get(key) not in (None, "")), None)
    record_id = content_id(instruction, extra_input, output) if given_id is None else str(given_id)
    return Example(location=location, instruction=instruction, input=extra_input, output=output, record_id=record_id)


def _from_messages(location: str, messages: Any) -> dict[str, Any]:
    """Return the instruction and the output of a conversation with one user message and one assistant message."""
    turns = messages if isinstance(messages, list) and all(isinstance(turn, dict) for turn in messages) else []
    roles = [turn.get("role") for turn in turns]
    if roles != ["user", "assistant"]:
        found = ", ".join(map(str, roles)) or type(messages).__name__
        raise InputError(f"{location}: 'messages' must be one user message and one assistant message, found {found}")
    return {"instruction": turns[0].get("content"), "output": turns[1].get("content")}


def content_id(*parts: str | bytes) -> str:
    """Return a hash of the contents of a record, which is used as its id if it has none."""
    digest = xxhash.xxh3_128()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))  # so that ("ab", "c") and ("a", "bc") differ
        digest.update(content)
    return digest.hexdigest()


def _text(location: str, record: Mapping[str, Any], key: str) -> str:
    if key not in record:
        raise InputError(f"{location}: missing key '{key}' (found {', '.join(map(repr, record)) or 'no keys'})")
    text = record[key]
    if not isinstance(text, str):
        raise InputError(f"{location}: '{key}' must be a string, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON allows unpaired surrogates, but tokenizers do not
        raise InputError(f"{location}: '{key}' is not valid Unicode at character {error.start}") from error
    return text
