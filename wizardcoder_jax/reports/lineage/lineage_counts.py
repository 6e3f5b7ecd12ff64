"""Counts over all records of a run, whether or not the page shows them: the funnel, methods and lengths."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable

from wizardcoder_jax.reports.lineage.evolve_run import MAX_CHARS, LineageEntry

BINS_PER_OCTAVE = 2
MAX_BIN = 40  # 2 ** 20 characters


def length_bin(num_chars: int) -> int:
    """Return the bin of a length: bin b starts at 2 ** (b / BINS_PER_OCTAVE) characters; an empty text is in bin 0."""
    return min(MAX_BIN, int(math.log2(num_chars) * BINS_PER_OCTAVE + 1e-9)) if num_chars > 1 else 0


@dataclasses.dataclass(kw_only=True)
class RoundCounts:
    """What one round kept and rejected."""

    kept: int = 0
    rejected: Counter[str] = dataclasses.field(default_factory=Counter)  # by rule
    kept_by_method: Counter[int] = dataclasses.field(default_factory=Counter)
    rejected_by_method: Counter[int] = dataclasses.field(default_factory=Counter)
    instruction_lengths: Counter[int] = dataclasses.field(default_factory=Counter)  # of kept records, by bin
    output_lengths: Counter[int] = dataclasses.field(default_factory=Counter)

    @property
    def pool(self) -> int:
        """Number of records that the round started with."""
        return self.kept + self.rejected.total()

    def add(self, entry: LineageEntry) -> None:
        """Count one outcome of the round."""
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
        rounds: by number, ascending.
        rules: the rules that rejected something, in the order in which evolve checks them, as far as the records show it.
        trees: position of each seed's tree, by seed id.
        num_chars: of all texts, each cut to what the page would show.
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
        """Records of all rounds, seeds included."""
        return sum(round_.kept for round_ in self.rounds.values())

    @property
    def num_rejected(self) -> int:
        """Rejections of all rounds."""
        return sum(round_.rejected.total() for round_ in self.rounds.values())


def count_entries(entries: Iterable[LineageEntry]) -> LineageCounts:
    """Count everything in one pass over the entries."""
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
    """Return the rules that rejected something. The filters that a kept record passed give their order."""
    checked = max(filters, key=lambda names: (len(names), names), default=())
    used = {rule for round_ in rounds.values() for rule in round_.rejected}
    return sorted(used, key=lambda rule: (checked.index(rule) if rule in checked else len(checked), rule))
