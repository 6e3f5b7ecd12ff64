"""Counts over all records of an evolve run, including those that the page does not show: rules, methods and lengths."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable

from wizardcoder_jax.reports.lineage.evolve_run import MAX_CHARS, LineageEntry

BINS_PER_OCTAVE = 2  # number of histogram bins between a length and twice the length
MAX_BIN = 40  # index of the last bin: 2 ** 20 characters or more


def length_bin(num_chars: int) -> int:
    """Return the index of the bin for a length. Bin b starts at 2 ** (b / BINS_PER_OCTAVE) characters; length 0 is in bin 0."""
    return min(MAX_BIN, int(math.log2(num_chars) * BINS_PER_OCTAVE + 1e-9)) if num_chars > 1 else 0


@dataclasses.dataclass(kw_only=True)
class RoundCounts:
    """Numbers of kept and rejected records in one round."""

    kept: int = 0
    rejected: Counter[str] = dataclasses.field(default_factory=Counter)  # number of records by rule
    kept_by_method: Counter[int] = dataclasses.field(default_factory=Counter)
    rejected_by_method: Counter[int] = dataclasses.field(default_factory=Counter)
    instruction_lengths: Counter[int] = dataclasses.field(default_factory=Counter)  # number of kept records by bin
    output_lengths: Counter[int] = dataclasses.field(default_factory=Counter)  # number of kept records by bin

    @property
    def pool(self) -> int:
        """Number of records in the round before filtering."""
        return self.kept + self.rejected.total()

    def add(self, entry: LineageEntry) -> None:
        """Count one record of the round, kept or rejected."""
        methods = self.kept_by_method if entry.rule is None else self.rejected_by_method
        if entry.method is not None:
            methods[entry.method] += 1
        if entry.rule is not None:
            self.rejected[entry.rule] += 1
            return
        self.kept += 1
        self.instruction_lengths[length_bin(len(entry.instruction))] += 1
        self.output_lengths[length_bin(len(entry.output))] += 1


@dataclasses.dataclass(kw_only=True)
class LineageCounts:
    """Counts over a whole run.

    Attributes:
        rounds: counts by round number, in ascending order.
        rules: rules that rejected a record, in the order in which `evolve` checks them, as far as the records show it.
        trees: index of each seed's tree, by seed id.
        teachers: number of records by teacher.
        num_chars: number of characters of all instructions and outputs, each cut to MAX_CHARS.
        prompt_tokens: number of prompt tokens of all teacher calls.
        completion_tokens: number of completion tokens of all teacher calls.
    """

    rounds: dict[int, RoundCounts]
    rules: list[str]
    trees: dict[str, int]
    teachers: Counter[str]
    num_chars: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def num_kept(self) -> int:
        """Number of kept records in all rounds, including the seeds."""
        return sum(round_.kept for round_ in self.rounds.values())

    @property
    def num_rejected(self) -> int:
        """Number of rejected records in all rounds."""
        return sum(round_.rejected.total() for round_ in self.rounds.values())


def count_entries(entries: Iterable[LineageEntry]) -> LineageCounts:
    """Count all entries in one pass."""
    rounds: dict[int, RoundCounts] = {}
    filters: Counter[tuple[str, ...]] = Counter()
    counts = LineageCounts(
        rounds=rounds, rules=[], trees={}, teachers=Counter(), num_chars=0, prompt_tokens=0, completion_tokens=0
    )
    for entry in entries:
        rounds.setdefault(entry.round, RoundCounts()).add(entry)
        counts.trees.setdefault(entry.seed_id, len(counts.trees))
        counts.num_chars += min(len(entry.instruction), MAX_CHARS) + min(len(entry.output), MAX_CHARS)
        counts.prompt_tokens += entry.prompt_tokens
        counts.completion_tokens += entry.completion_tokens
        if entry.teacher is not None:
            counts.teachers[entry.teacher] += 1
        if entry.rule is None:
            filters[entry.filters] += 1
    counts.rounds = dict(sorted(rounds.items()))
    counts.rules = _rules_in_order(rounds, filters)
    return counts


def _rules_in_order(rounds: dict[int, RoundCounts], filters: Counter[tuple[str, ...]]) -> list[str]:
    """Return the rules that rejected a record, in the order in which the filters of a kept record list them."""
    checked = max(filters, key=lambda names: (len(names), names), default=())
    used = {rule for round_ in rounds.values() for rule in round_.rejected}
    return sorted(used, key=lambda rule: (checked.index(rule) if rule in checked else len(checked), rule))
