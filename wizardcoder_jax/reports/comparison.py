"""Two results side by side: whether they may be compared, what differs in how they were made, which problems flipped."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from wizardcoder_jax.reports.results_reader import Result

NUM_RESAMPLES = 10_000
_DECODING = ("temperature", "top_p", "num_samples", "seed", "max_length", "compute_dtype", "int8_weights")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip:
    """A problem whose share of passing samples differs."""

    task_id: str
    before: tuple[int, int]  # (number of samples, number that passed) in the first
    after: tuple[int, int]  # in the second

    @property
    def change(self) -> float:
        """The share in the second less that in the first."""
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
        """Those that pass more often in the second."""
        return tuple(flip for flip in self.flips if flip.change > 0)

    @property
    def lost(self) -> tuple[Flip, ...]:
        """Those that pass less often in the second."""
        return tuple(flip for flip in self.flips if flip.change < 0)


def why_incomparable(first: Result, second: Result) -> str | None:
    """Why scores of two results of one benchmark are not the same measurement; None where they are."""
    pairs = {
        "protocols": (first.protocol, second.protocol),
        "problem files": (_problem_hash(first.version), _problem_hash(second.version)),
    }
    found = [f"different {name}: {a} and {b}" for name, (a, b) in pairs.items() if a != b]
    return "; ".join(found) or None


def _problem_hash(version: str) -> str:
    """Of "LABEL sha256:HASH" the hash: the same problems come under many file names."""
    return version.rpartition("sha256:")[2]


def differences(first: Result, second: Result) -> list[tuple[str, str, str]]:
    """(what, in the first, in the second) of all that was not the same and bears on the scores."""
    rows = [
        ("protocol", first.protocol, second.protocol),
        ("benchmark", first.version, second.version),
        ("problems", len(first.problems), len(second.problems)),
        ("samples a problem", first.num_samples, second.num_samples),
        ("sandbox", first.tier, second.tier),
        *((name, first.meta.get(name), second.meta.get(name)) for name in _DECODING if name != "num_samples"),
        ("time limit", first.config.get("timeout_s"), second.config.get("timeout_s")),
        ("Python", first.environment.get("python"), second.environment.get("python")),
        ("packages", first.environment.get("packages"), second.environment.get("packages")),
    ]
    return [(name, _said(a), _said(b)) for name, a, b in rows if a != b]


def _said(value: object) -> str:
    return "not recorded" if value is None else str(value)


def compare(first: Result, second: Result) -> RunComparison | None:
    """The comparison, or None where they have no problem in common."""
    before, after = first.counts, second.counts
    common = [task_id for task_id in before if before[task_id][0] and after.get(task_id, (0, 0))[0]]
    if not common:
        return None
    flips = [Flip(task_id=task_id, before=before[task_id], after=after[task_id]) for task_id in common]
    changes = [flip.change for flip in flips]
    changed = sorted((flip for flip in flips if flip.change), key=lambda flip: (-abs(flip.change), -flip.change))
    return RunComparison(
        num_problems=len(common), flips=tuple(changed), change=sum(changes) / len(changes), interval=_interval(changes)
    )


def _interval(changes: Sequence[float]) -> tuple[float, float]:
    values, rng = np.array(changes), np.random.default_rng(0)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
