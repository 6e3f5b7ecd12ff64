"""What one round kept and dropped, counted while it is written."""

from collections import Counter
from typing import Any

from wizardcoder_jax.instructions.records import Record, Rejection


class RoundStatistics:
    """The counts of one round; round 0 holds the seeds."""

    def __init__(self, round_: int) -> None:
        self.round, self.num_kept = round_, 0
        self.rejected: Counter[str] = Counter()
        self.teachers: set[str] = set()
        self._methods: Counter[int] = Counter()

    def add(self, outcome: Record | Rejection) -> None:
        """Counts an outcome."""
        if isinstance(outcome, Rejection):
            self.rejected[outcome.rule] += 1
            return
        self.num_kept += 1
        if outcome.method is not None:
            self._methods[outcome.method] += 1
        if outcome.teacher is not None:
            self.teachers.add(outcome.teacher)

    def to_json(self) -> dict[str, Any]:
        """The round's entry in summary.json."""
        return {
            "round": self.round,
            "pool": self.num_kept + self.rejected.total(),
            "kept": self.num_kept,
            "rejected": dict(sorted(self.rejected.items())),
            "methods": {str(number): self._methods[number] for number in sorted(self._methods)},
        }
