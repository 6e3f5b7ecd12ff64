"""Statistics of the outcomes of one round, updated while the round is written, in constant memory.

Counts and lengths cover all records. Difficulty and diversity, which take longer to compute, are measured on a sample: the
records whose seeds have the smallest hashes. The sample is therefore the same in every run, and follows the same seeds through
all rounds.
"""

import dataclasses
import functools
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wizardcoder_jax.core.seeded_random import random_bits
from wizardcoder_jax.evol_instruct.difficulty import MEASURES, Difficulty, measure_difficulty
from wizardcoder_jax.evol_instruct.diversity import measure_diversity, split_words, vocabulary
from wizardcoder_jax.evol_instruct.elimination_rules import CONTAMINATED, excerpt
from wizardcoder_jax.evol_instruct.length_histogram import LengthHistogram
from wizardcoder_jax.evol_instruct.licenses import is_code_alpaca
from wizardcoder_jax.evol_instruct.records import Record, Rejection, Usage

SAMPLE_SIZE = 1000
MAX_SAMPLE_CHARS = 20_000  # longer instructions and outputs are truncated in the sample
MAX_EXAMPLES = 3  # maximum number of examples of evidence per rule
EXAMPLE_CHARS = 160
NUM_DECIMALS = 2

# Pattern of the evidence against a contaminated record, which is a ContaminationMatch converted to a string.
_CONTAMINATION = re.compile(r"(?P<tier>[a-z]+) [\d.]+, .{1,300}? \((?P<benchmark>[^()\n]{1,200})\): ")


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class _Sampled:
    """A record in the sample; the record with the smallest `order` is replaced first."""

    order: int  # negative hash of the seed id, so that the min-heap drops the record with the largest hash
    id: str
    parent_id: str | None
    instruction: str
    output: str


class RoundStatistics:
    """Statistics of one round; round 0 consists of the seeds.

    Attributes:
        round: the number of the round.
        num_kept: number of kept records.
        rejected: number of rejected records by rule.
        tiers: number of contaminated records by tier (kind of match).
        benchmarks: number of contaminated records by benchmark file.
        examples: for each rule, the first records that it rejected, as (record id, evidence).
        teachers: names of the models that wrote the kept records, as reported by the server.
        usage: total usage of all records, kept or rejected.
        has_code_alpaca: whether any seed is from Code Alpaca.
    """

    def __init__(self, round_: int) -> None:
        self.round, self.num_kept = round_, 0
        self.rejected: Counter[str] = Counter()
        self.tiers: Counter[str] = Counter()
        self.benchmarks: Counter[str] = Counter()
        self.examples: dict[str, list[tuple[str, str]]] = {}
        self.teachers: set[str] = set()
        self.usage = Usage()
        self.has_code_alpaca = False
        self._methods: Counter[int] = Counter()
        self._rejected_methods: Counter[int] = Counter()
        self._tasks: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()
        self._instructions, self._outputs = LengthHistogram(), LengthHistogram()
        self._heap: list[_Sampled] = []

    @property
    def pool_size(self) -> int:
        """Number of records at the start of the round."""
        return self.num_kept + self.rejected.total()

    def add(self, outcome: Record | Rejection) -> None:
        """Count an outcome. All outcomes must be added before `to_json` is called."""
        record = outcome.record if isinstance(outcome, Rejection) else outcome
        self.usage += record.usage
        self.has_code_alpaca |= is_code_alpaca(record.seed_id)
        if isinstance(outcome, Rejection):
            self._add_rejection(outcome)
            return
        self.num_kept += 1
        if outcome.method is not None:
            self._methods[outcome.method] += 1
        if outcome.teacher is not None:
            self.teachers.add(outcome.teacher)
        self._tasks[outcome.task] += 1
        self._languages[outcome.language or ""] += 1
        self._instructions.add(len(outcome.instruction))
        self._outputs.add(len(outcome.output))
        self._add_to_sample(outcome)

    def _add_rejection(self, rejection: Rejection) -> None:
        rule, record = rejection.rule, rejection.record
        self.rejected[rule] += 1
        if record.method is not None:
            self._rejected_methods[record.method] += 1
        if rule == CONTAMINATED:
            found = _CONTAMINATION.match(rejection.evidence)
            self.tiers[found["tier"] if found else "other"] += 1
            self.benchmarks[found["benchmark"] if found else "other"] += 1
        examples = self.examples.setdefault(rule, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append((record.id, excerpt(rejection.evidence, EXAMPLE_CHARS)))

    def _add_to_sample(self, record: Record) -> None:
        order = -random_bits(record.seed_id)
        if len(self._heap) >= SAMPLE_SIZE and order <= self._heap[0].order:
            return
        sampled = _Sampled(
            order=order,
            id=record.id,
            parent_id=record.parent_id,
            instruction=record.instruction[:MAX_SAMPLE_CHARS],
            output=record.output[:MAX_SAMPLE_CHARS],
        )
        (heapq.heappush if len(self._heap) < SAMPLE_SIZE else heapq.heappushpop)(self._heap, sampled)

    @functools.cached_property
    def _sample(self) -> list[_Sampled]:
        return sorted(self._heap, reverse=True)

    @functools.cached_property
    def _words(self) -> list[list[str]]:
        return [split_words(sampled.instruction) for sampled in self._sample]

    @functools.cached_property
    def _measured(self) -> Mapping[str, Difficulty]:
        return {sampled.id: measure_difficulty(sampled.instruction, sampled.output) for sampled in self._sample}

    def to_json(self, earlier: Sequence["RoundStatistics"] = ()) -> dict[str, Any]:
        """Return the entry of the round in summary.json.

        Args:
            earlier: statistics of all earlier rounds, which contain the parents of this round's records.
        """
        known = vocabulary([text for statistics in earlier for text in statistics._words]) if earlier else None
        return {
            "round": self.round,
            "pool": self.pool_size,
            "kept": self.num_kept,
            "rejected": dict(sorted(self.rejected.items())),
            "methods": _by_number(self._methods),
            "methods_rejected": _by_number(self._rejected_methods),
            "tasks": dict(sorted(self._tasks.items())),
            "languages": {name or "not said": count for name, count in sorted(self._languages.items())},
            "usage": {"prompt_tokens": self.usage.prompt_tokens, "completion_tokens": self.usage.completion_tokens},
            "lengths": {"instruction": self._instructions.to_json(), "output": self._outputs.to_json()},
            "num_sampled": len(self._sample),
            "difficulty": self._difficulty(earlier),
            "diversity": measure_diversity(self._words, known),
        }

    def _difficulty(self, earlier: Sequence["RoundStatistics"]) -> dict[str, dict[str, float | None]]:
        """Return the mean of each difficulty measure over the sample, and its mean change from parent to child.

        The change is averaged over the pairs of which both records are in the samples of their rounds.
        """
        measured = {id_: own for statistics in earlier for id_, own in statistics._measured.items()}
        pairs = [
            (measured[sampled.parent_id], self._measured[sampled.id])
            for sampled in self._sample
            if sampled.parent_id in measured
        ]
        means = {}
        for name in MEASURES:
            values = [value for own in self._measured.values() if (value := getattr(own, name)) is not None]
            changes = [
                after - before
                for parent, child in pairs
                if (before := getattr(parent, name)) is not None and (after := getattr(child, name)) is not None
            ]
            means[name] = {"mean": _mean(values), "change": _mean(changes), "num": len(values)}
        return means


def _by_number(counts: Counter[int]) -> dict[str, int]:
    return {str(number): counts[number] for number in sorted(counts)}


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return round(sum(values) / len(values), NUM_DECIMALS) if values else None
