"""Comparison of two results: whether they are comparable, how they were made, and which problems flipped."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from wizardcoder_jax.reports.results_reader import EvaluationResult

NUM_RESAMPLES = 10_000
_SAMPLING_SETTINGS = ("temperature", "top_p", "seed", "max_length", "compute_dtype", "int8_weights")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip:
    """A problem whose share of passing samples differs."""

    task_id: str
    before: tuple[int, int]  # (number of samples, number that passed) in the first result
    after: tuple[int, int]  # in the second result

    @property
    def change(self) -> float:
        """Share in the second result minus share in the first."""
        return self.after[1] / self.after[0] - self.before[1] / self.before[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunComparison:
    """The second of two results against the first, over the problems that both have."""

    num_problems: int
    flips: tuple[Flip, ...]  # largest change first; gains before losses of the same size
    change: float  # of pass@1
    interval: tuple[float, float]  # of the change, 95 %: bootstrap over problems, both results resampled together

    @property
    def gained(self) -> tuple[Flip, ...]:
        """Problems that pass more often in the second result."""
        return tuple(flip for flip in self.flips if flip.change > 0)

    @property
    def lost(self) -> tuple[Flip, ...]:
        """Problems that pass less often in the second result."""
        return tuple(flip for flip in self.flips if flip.change < 0)


def find_mismatch(first: EvaluationResult, second: EvaluationResult) -> str | None:
    """Explain why the scores of two results of one benchmark are not comparable; None if they are."""
    pairs = {
        "protocols": (first.protocol, second.protocol),
        "problem files": (_problem_hash(first.version), _problem_hash(second.version)),
    }
    found = [f"different {name}: {a} and {b}" for name, (a, b) in pairs.items() if a != b]
    return "; ".join(found) or None


def _problem_hash(version: str) -> str:
    """Return the hash in "LABEL sha256:HASH": the same problems come under many file names."""
    return version.rpartition("sha256:")[2]


def list_differences(first: EvaluationResult, second: EvaluationResult) -> list[tuple[str, str, str]]:
    """Return (name, value in the first, value in the second) of each setting that may affect scores and differs."""
    rows = [
        ("protocol", first.protocol, second.protocol),
        ("benchmark", first.version, second.version),
        ("problems", len(first.problems), len(second.problems)),
        ("samples per problem", first.num_samples, second.num_samples),
        ("sandbox", first.tier, second.tier),
        *((name, first.samples_meta.get(name), second.samples_meta.get(name)) for name in _SAMPLING_SETTINGS),
        ("time limit", first.config.get("timeout_s"), second.config.get("timeout_s")),
        ("Python", first.environment.get("python"), second.environment.get("python")),
        ("packages", first.environment.get("packages"), second.environment.get("packages")),
    ]
    return [(name, _format(a), _format(b)) for name, a, b in rows if a != b]


def _format(value: object) -> str:
    return "not recorded" if value is None else str(value)


def compare_results(first: EvaluationResult, second: EvaluationResult) -> RunComparison | None:
    """Compare two results over their common problems; None if there are none."""
    before, after = first.counts, second.counts
    common = [task_id for task_id in before if before[task_id][0] and after.get(task_id, (0, 0))[0]]
    if not common:
        return None
    flips = [Flip(task_id=task_id, before=before[task_id], after=after[task_id]) for task_id in common]
    changes = [flip.change for flip in flips]
    changed = sorted((flip for flip in flips if flip.change), key=lambda flip: (-abs(flip.change), -flip.change))
    return RunComparison(
        num_problems=len(common), flips=tuple(changed), change=sum(changes) / len(changes), interval=_bootstrap(changes)
    )


def _bootstrap(changes: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean change."""
    values, rng = np.array(changes), np.random.default_rng(0)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
