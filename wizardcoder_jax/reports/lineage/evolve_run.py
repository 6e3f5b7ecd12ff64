"""The files that evolve wrote, read as a stream of entries: what was kept, then what was rejected."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, read_json
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.reports.html_escape import visible

MALICIOUS = "malicious_request"  # the rule whose records no page shows
WITHHELD = "[withheld: malicious.jsonl]"
MAX_CHARS = 20_000  # of a text that are shown


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LineageEntry:
    """A line of evolved.jsonl, or of rejected.jsonl (then `rule` is set); its texts whole."""

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
    """An output folder of evolve."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        if not exists(os.path.join(folder, "evolved.jsonl")):
            raise InputError(f"{folder} holds no evolved.jsonl; name an output folder of evolve that has finished")

    def summary(self) -> dict[str, Any]:
        """What summary.json says of the run; nothing where it is missing."""
        path = os.path.join(self.folder, "summary.json")
        return read_json(path) if exists(path) else {}

    def entries(self) -> Iterator[LineageEntry]:
        """All records, then all rejections, in the order of their files.

        Raises:
            InputError: a line is no record.
        """
        for name in ("evolved.jsonl", "rejected.jsonl"):
            path = os.path.join(self.folder, name)
            if exists(path):
                for place, line in read_records(path):
                    yield _entry(place, line, is_rejected=name == "rejected.jsonl")


def _entry(place: str, line: dict[str, Any], *, is_rejected: bool) -> LineageEntry:
    rule = _field(place, line, "rule", str) if is_rejected else None
    is_withheld = rule == MALICIOUS
    usage = line.get("usage")
    tokens = usage if isinstance(usage, dict) else {}
    return LineageEntry(
        id=_field(place, line, "id", str),
        parent_id=_optional(line, "parent_id", str),
        seed_id=_field(place, line, "seed_id", str),
        round=_field(place, line, "round", int),
        method=_optional(line, "method", int),
        instruction=WITHHELD if is_withheld else _field(place, line, "instruction", str),
        output=WITHHELD if is_withheld else _field(place, line, "output", str),
        teacher=_optional(line, "teacher", str),
        prompt_tokens=_optional(tokens, "prompt_tokens", int) or 0,
        completion_tokens=_optional(tokens, "completion_tokens", int) or 0,
        filters=_texts(line, "filters"),
        call_ids=_texts(line, "call_ids"),
        task=_optional(line, "task", str) or "generate",
        language=_optional(line, "language", str),
        rule=rule,
        evidence=WITHHELD if is_withheld else (_optional(line, "evidence", str) or ""),
    )


def _field(place: str, line: dict[str, Any], name: str, kind: type) -> Any:
    value = line.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "is missing" if name not in line else f"is {type(value).__name__}"
        expected = "a text" if kind is str else "a whole number"
        raise InputError(f'{place}: "{name}" {found}, expected {expected}; is this a file that evolve wrote?')
    return value


def _optional(line: dict[str, Any], name: str, kind: type) -> Any:
    value = line.get(name)
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _texts(line: dict[str, Any], name: str) -> tuple[str, ...]:
    value = line.get(name)
    return tuple(entry for entry in value if isinstance(entry, str)) if isinstance(value, list) else ()


def shown(text: str, max_chars: int = MAX_CHARS) -> str:
    """The start of `text` with hidden characters made visible: what the page holds of it."""
    return visible(text[:max_chars])
