"""What the page counts over all records, however many of them it shows: the funnel, methods and lengths."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable

from wizardcoder_jax.reports.lineage.evolve_run import MAX_CHARS, LineageEntry

BINS_PER_OCTAVE = 2
MAX_BIN = 40  # 2 ** 20 characters


def length_bin(num_chars: int) -> int:
    """The bin of a length: bin b begins at 2 ** (b / BINS_PER_OCTAVE) characters; an empty text is in bin 0."""
    return min(MAX_BIN, int(math.log2(num_chars) * BINS_PER_OCTAVE + 1e-9)) if num_chars > 1 else 0


@dataclasses.dataclass(kw_only=True)
class RoundCounts:
    """One round: what it kept and dropped."""

    kept: int = 0
    rejected: Counter[str] = dataclasses.field(default_factory=Counter)  # by rule
    kept_by_method: Counter[int] = dataclasses.field(default_factory=Counter)
    rejected_by_method: Counter[int] = dataclasses.field(default_factory=Counter)
    instruction_lengths: Counter[int] = dataclasses.field(default_factory=Counter)  # of what was kept, by bin
    output_lengths: Counter[int] = dataclasses.field(default_factory=Counter)

    @property
    def pool(self) -> int:
        """What the round began with."""
        return self.kept + self.rejected.total()

    def add(self, entry: LineageEntry) -> None:
        """Counts an outcome of the round."""
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
    """The whole run.

    Attributes:
        rounds: by number, ascending.
        rules: names, in the order in which they are checked as far as records say it.
        trees: place of each seed's tree, by seed id.
        num_chars: of all texts, as far as the page would show them.
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


def count(entries: Iterable[LineageEntry]) -> LineageCounts:
    """Counts everything, in one pass over the entries."""
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
    counts.rules = _in_order(rounds, filters)
    return counts


def _in_order(rounds: dict[int, RoundCounts], filters: Counter[tuple[str, ...]]) -> list[str]:
    """The rules that dropped something; a record's filters say what is checked before what."""
    checked = max(filters, key=lambda names: (len(names), names), default=())
    dropped = {rule for round_ in rounds.values() for rule in round_.rejected}
    return sorted(dropped, key=lambda rule: (checked.index(rule) if rule in checked else len(checked), rule))
