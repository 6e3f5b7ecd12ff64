"""Instruction records: {"instruction", "input"?, "output"}, or {"messages"} of a question and its answer.

Of other keys only "seed_id" and "id" are looked at.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import xxhash

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.record_files import read_records


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One instruction and the response to learn."""

    place: str  # FILE:LINE, for messages
    instruction: str
    input: str  # "" where the record has none
    output: str
    record_id: str  # decides which side of a split it is on: the seed_id, else the id, else a hash of the texts


def read_examples(files: Sequence[str]) -> list[Example]:
    """The examples of `files` (JSONL, JSON array or parquet, plain or gzipped), in order.

    An empty output is an example like any other: it teaches to end at once (Code Alpaca 20k has six).

    Raises:
        InputError: a file is missing or malformed, a record lacks text, or there is no example at all.
    """
    examples = [read_example(place, record) for file in files for place, record in read_records(file)]
    if not examples:
        raise InputError(f"no examples in {', '.join(files)}; each needs an 'instruction' and an 'output'")
    return examples


def read_example(place: str, record: Mapping[str, Any]) -> Example:
    """The example that a record holds; errors as for `read_examples`."""
    if "messages" in record and "instruction" not in record:
        record = {**record, **_from_messages(place, record["messages"])}
    instruction = _text(place, record, "instruction")
    if not instruction.strip():
        raise InputError(f"{place}: 'instruction' is empty; write one or remove the record")
    extra_input = _text(place, record, "input") if record.get("input") is not None else ""
    output = _text(place, record, "output")
    given = next((record[key] for key in ("seed_id", "id") if record.get(key) not in (None, "")), None)
    record_id = content_id(instruction, extra_input, output) if given is None else str(given)
    return Example(place=place, instruction=instruction, input=extra_input, output=output, record_id=record_id)


def _from_messages(place: str, messages: Any) -> dict[str, Any]:
    """Instruction and output of a conversation of one question with one answer."""
    turns = messages if isinstance(messages, list) and all(isinstance(turn, dict) for turn in messages) else []
    roles = [turn.get("role") for turn in turns]
    if roles != ["user", "assistant"]:
        found = ", ".join(map(str, roles)) or type(messages).__name__
        raise InputError(f"{place}: 'messages' must be one of the user and one of the assistant, found {found}")
    return {"instruction": turns[0].get("content"), "output": turns[1].get("content")}


def content_id(*parts: str | bytes) -> str:
    """The id of a record without one: equal records have equal ids."""
    digest = xxhash.xxh3_128()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))  # else "ab", "c" were "a", "bc"
        digest.update(content)
    return digest.hexdigest()


def _text(place: str, record: Mapping[str, Any], key: str) -> str:
    if key not in record:
        raise InputError(f"{place}: no key '{key}' (found {', '.join(map(repr, record)) or 'none'})")
    text = record[key]
    if not isinstance(text, str):
        raise InputError(f"{place}: '{key}' must be a string, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair, which no tokenizer can read
        raise InputError(f"{place}: '{key}' is not valid Unicode at character {error.start}") from error
    return text
