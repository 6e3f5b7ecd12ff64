"""The JSON report of the `decontaminate` command: counts of contaminated records, and evidence against them."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.evol_instruct.contamination.contamination_detector import TIERS, ContaminationMatch
from wizardcoder_jax.evol_instruct.elimination_rules import CONTAMINATED

MAX_EVIDENCE = 200  # maximum number of records with evidence in the report; the file of --rejected has all


class ContaminationReport:
    """Running counts of clean and contaminated records."""

    def __init__(self) -> None:
        self.num_records = 0
        self.num_contaminated = 0
        self._tiers: Counter[str] = Counter()
        self._records: Counter[str] = Counter()
        self._problems: dict[str, set[str]] = {}
        self._evidence: list[dict[str, Any]] = []

    def add(self, location: str, matches: Sequence[ContaminationMatch]) -> None:
        """Count a record under the tier of its most obvious match, and under each benchmark with a match.

        Args:
            location: file and line of the record.
            matches: the problems found in the record, most obvious first; empty if the record is clean.
        """
        self.num_records += 1
        if not matches:
            return
        self.num_contaminated += 1
        self._tiers[matches[0].tier] += 1
        self._records.update({match.benchmark for match in matches})
        for match in matches:
            self._problems.setdefault(match.benchmark, set()).add(match.task_id)
        if len(self._evidence) < MAX_EVIDENCE:
            self._evidence.append({"record": location, **match_to_json(matches[0]), "num_problems": len(matches)})

    def to_json(self) -> dict[str, Any]:
        """Return the counts, and the evidence against the first MAX_EVIDENCE contaminated records."""
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


def match_to_json(match: ContaminationMatch) -> dict[str, Any]:
    """Return a match as a JSON object for the report and for rejected records."""
    return {**dataclasses.asdict(match), "score": round(match.score, 3)}


def rejected_entry(entry: dict[str, Any], matches: Sequence[ContaminationMatch]) -> dict[str, Any]:
    """Return a contaminated record with the evidence, in the fields that `evolve` uses in rejected.jsonl."""
    return {
        **entry,
        "rule": CONTAMINATED,
        "evidence": str(matches[0]),
        "contamination": [match_to_json(match) for match in matches],
    }
