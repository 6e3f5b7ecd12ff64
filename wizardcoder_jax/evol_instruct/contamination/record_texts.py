"""Records of any instruction dataset: where their texts are, and what was found in them."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evol_instruct.contamination.contamination_detector import TIERS, ContaminationMatch
from wizardcoder_jax.evol_instruct.elimination_rules import CONTAMINATED

SHAPES = (  # the first whose first field a record has is its shape; the other fields may be missing or null
    ("messages",),
    ("conversations",),
    ("instruction", "input", "output", "response"),
    ("prompt", "completion", "response"),
    ("query", "answer", "response"),
    ("question", "answer", "response"),
    ("problem", "solution"),
    ("text",),
    ("content",),
)
MAX_EVIDENCE = 200  # records that the report shows; --rejected has them all


def extract_text(place: str, entry: dict[str, Any], fields: Sequence[str]) -> str:
    """All text of a record, in the order of its fields.

    Args:
        place: of the record, for complaints.
        entry: the record.
        fields: where its text is; none: the fields of the first shape that fits.

    Raises:
        InputError: no shape fits, a named field is missing, or one is no text.
    """
    chosen = fields or next((shape for shape in SHAPES if shape[0] in entry), None)
    if chosen is None:
        found = ", ".join(map(str, entry)) or "none"
        raise InputError(f"{place}: no field of an instruction dataset (fields: {found}); name them with --text-fields")
    missing = [field for field in fields or chosen[:1] if field not in entry]
    if missing:
        raise InputError(f'{place}: no field "{missing[0]}"; --text-fields must name fields that every record has')
    return "\n".join(text for field in chosen for text in _texts(place, field, entry.get(field)))


def _texts(place: str, field: str, value: Any) -> list[str]:
    """The texts of a field: itself, or those of the turns of a chat."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise InputError(f'{place}: field "{field}" is {type(value).__name__}, expected a text or a list of messages')
    texts = []
    for turn in value:
        content = (
            next((turn[name] for name in ("content", "value", "text") if name in turn), "") if isinstance(turn, dict) else turn
        )
        texts += _texts(place, field, content)
    return texts


class ContaminationReport:
    """What was found so far."""

    def __init__(self) -> None:
        self.num_records = 0
        self.num_contaminated = 0
        self._tiers: Counter[str] = Counter()
        self._records: Counter[str] = Counter()
        self._problems: dict[str, set[str]] = {}
        self._evidence: list[dict[str, Any]] = []

    def add(self, place: str, hits: Sequence[ContaminationMatch]) -> None:
        """Counts a record; it counts in one tier, the plainest, and in each benchmark once."""
        self.num_records += 1
        if not hits:
            return
        self.num_contaminated += 1
        self._tiers[hits[0].tier] += 1
        self._records.update({hit.benchmark for hit in hits})
        for hit in hits:
            self._problems.setdefault(hit.benchmark, set()).add(hit.task_id)
        if len(self._evidence) < MAX_EVIDENCE:
            self._evidence.append({"record": place, **match_to_json(hits[0]), "num_problems": len(hits)})

    def report(self) -> dict[str, Any]:
        """The counts, and the evidence of the first records."""
        return {
            "num_records": self.num_records,
            "num_kept": self.num_records - self.num_contaminated,
            "num_contaminated": self.num_contaminated,
            "by_tier": {tier: self._tiers[tier] for tier in TIERS},
            "by_benchmark": {
                benchmark: {"num_records": self._records[benchmark], "num_problems": len(self._problems[benchmark])}
                for benchmark in sorted(self._records)
            },
            "evidence": self._evidence,
        }


def match_to_json(hit: ContaminationMatch) -> dict[str, Any]:
    """A hit as it is written."""
    return {**dataclasses.asdict(hit), "score": round(hit.score, 3)}


def rejected_entry(entry: dict[str, Any], hits: Sequence[ContaminationMatch]) -> dict[str, Any]:
    """A record that holds problems, with the evidence; named as in evolve's rejected.jsonl."""
    return {**entry, "rule": CONTAMINATED, "evidence": str(hits[0]), "contamination": [match_to_json(hit) for hit in hits]}
