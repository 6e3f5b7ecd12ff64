"""Comparison of two evaluation results: whether they are comparable, which settings differ, and which problems flipped."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from wizardcoder_jax.reports.results_reader import EvaluationResult

NUM_RESAMPLES = 10_000  # number of bootstrap resamples
_SAMPLING_SETTINGS = ("temperature", "top_p", "seed", "max_length", "compute_dtype", "int8_weights")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip:
    """A problem with different fractions of passing samples in two results."""

    task_id: str
    before: tuple[int, int]  # (number of samples, number of passing samples) in the first result
    after: tuple[int, int]  # the same numbers in the second result

    @property
    def change(self) -> float:
        """Fraction of passing samples in the second result minus the fraction in the first."""
        return self.after[1] / self.after[0] - self.before[1] / self.before[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunComparison:
    """Changes from the first of two results to the second, over the problems that both contain."""

    num_problems: int  # number of common problems
    flips: tuple[Flip, ...]  # sorted by size of the change, the largest first; gains before losses of the same size
    change: float  # change of pass@1
    interval: tuple[float, float]  # 95 % interval of `change` by paired bootstrap over problems

    @property
    def gained(self) -> tuple[Flip, ...]:
        """Problems that pass more often in the second result."""
        return tuple(flip for flip in self.flips if flip.change > 0)

    @property
    def lost(self) -> tuple[Flip, ...]:
        """Problems that pass less often in the second result."""
        return tuple(flip for flip in self.flips if flip.change < 0)


def find_mismatch(first: EvaluationResult, second: EvaluationResult) -> str | None:
    """Return why the scores of two results of one benchmark are not comparable, or None if they are comparable."""
    pairs = {
        "protocols": (first.protocol, second.protocol),
        "problem files": (_problem_hash(first.version), _problem_hash(second.version)),
    }
    found = [f"different {name}: {a} and {b}" for name, (a, b) in pairs.items() if a != b]
    return "; ".join(found) or None


def _problem_hash(version: str) -> str:
    """Return the hash in "LABEL sha256:HASH". The label is ignored, because files with the same problems have many names."""
    return version.rpartition("sha256:")[2]


def list_differences(first: EvaluationResult, second: EvaluationResult) -> list[tuple[str, str, str]]:
    """Return (name, first value, second value) of each setting that differs and may affect scores."""
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
    """Compare two results over their common problems; return None if they have no problem in common."""
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
    """Return the 95 % bootstrap interval of the mean of `changes`."""
    values, rng = np.array(changes), np.random.default_rng(0)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
