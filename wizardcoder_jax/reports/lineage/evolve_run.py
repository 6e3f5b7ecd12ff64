"""Reader of the files that `evolve` writes. It yields the kept records first, then the rejected ones."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, read_json
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.reports.visible_text import reveal_hidden

MALICIOUS_RULE = "malicious_request"  # the page withholds the texts that this rule rejected
WITHHELD = "[withheld: malicious.jsonl]"
MAX_CHARS = 20_000  # number of characters shown of one instruction or output


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LineageEntry:
    """A line of evolved.jsonl, or of rejected.jsonl (`rule` is then set), with complete instruction and output."""

    id: str
    parent_id: str | None
    seed_id: str
    round: int
    method: int | None
    instruction: str
    output: str
    teacher: str | None
    prompt_tokens: int
    completion_tokens: int
    filters: tuple[str, ...]
    call_ids: tuple[str, ...]
    task: str
    language: str | None
    rule: str | None
    evidence: str


class EvolveRun:
    """Output folder of a finished `evolve` run."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        if not exists(os.path.join(folder, "evolved.jsonl")):
            raise InputError(f"{folder} has no evolved.jsonl; name the output folder of an evolve run that has finished")

    def summary(self) -> dict[str, Any]:
        """Return the contents of summary.json, or {} if the file is missing."""
        path = os.path.join(self.folder, "summary.json")
        return read_json(path) if exists(path) else {}

    def entries(self) -> Iterator[LineageEntry]:
        """Yield all kept records, then all rejected ones, in the order of their files.

        Raises:
            InputError: a line is not a record.
        """
        for name in ("evolved.jsonl", "rejected.jsonl"):
            path = os.path.join(self.folder, name)
            if exists(path):
                for where, line in read_records(path):
                    yield _parse_entry(where, line, is_rejected=name == "rejected.jsonl")


def _parse_entry(where: str, line: dict[str, Any], *, is_rejected: bool) -> LineageEntry:
    rule = _require(where, line, "rule", str) if is_rejected else None
    is_withheld = rule == MALICIOUS_RULE
    usage = line.get("usage")
    tokens = usage if isinstance(usage, dict) else {}
    return LineageEntry(
        id=_require(where, line, "id", str),
        parent_id=_optional(line, "parent_id", str),
        seed_id=_require(where, line, "seed_id", str),
        round=_require(where, line, "round", int),
        method=_optional(line, "method", int),
        instruction=WITHHELD if is_withheld else _require(where, line, "instruction", str),
        output=WITHHELD if is_withheld else _require(where, line, "output", str),
        teacher=_optional(line, "teacher", str),
        prompt_tokens=_optional(tokens, "prompt_tokens", int) or 0,
        completion_tokens=_optional(tokens, "completion_tokens", int) or 0,
        filters=_strings(line, "filters"),
        call_ids=_strings(line, "call_ids"),
        task=_optional(line, "task", str) or "generate",
        language=_optional(line, "language", str),
        rule=rule,
        evidence=WITHHELD if is_withheld else (_optional(line, "evidence", str) or ""),
    )


def _require(where: str, line: dict[str, Any], name: str, kind: type) -> Any:
    value = line.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "is missing" if name not in line else f"is {type(value).__name__}"
        expected = "a string" if kind is str else "an integer"
        raise InputError(f'{where}: "{name}" {found}, expected {expected}; is this a file that evolve wrote?')
    return value


def _optional(line: dict[str, Any], name: str, kind: type) -> Any:
    value = line.get(name)
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _strings(line: dict[str, Any], name: str) -> tuple[str, ...]:
    value = line.get(name)
    return tuple(entry for entry in value if isinstance(entry, str)) if isinstance(value, list) else ()


def excerpt(text: str, max_chars: int = MAX_CHARS) -> str:
    """Return the first `max_chars` characters of `text`, with hidden characters made visible."""
    return reveal_hidden(text[:max_chars])
