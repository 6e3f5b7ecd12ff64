"""From verdicts to a score: which samples are scored, and the pass@k part of a results file."""

from collections.abc import Mapping, Sequence
from typing import Any

from wizardcoder_jax.benchmarks.pass_at_k import mean_pass_at_k
from wizardcoder_jax.benchmarks.problem import Benchmark
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.errors import InputError

_NAMES_SHOWN = 10


def select_samples(
    benchmark: Benchmark, samples: Sequence[Sample], ks: Sequence[int], *, partial: bool = False
) -> dict[str, list[Sample]]:
    """The samples of each problem of the benchmark, in problem order and by index; others are left out.

    Args:
        benchmark: the problems that are scored.
        samples: of these and of other problems.
        ks: the k's of pass@k.
        partial: leave problems without a sample out, instead of refusing.

    Raises:
        InputError: a problem has no sample, or fewer than the largest k.
    """
    chosen: dict[str, list[Sample]] = {problem.task_id: [] for problem in benchmark.problems}
    for sample in sorted(samples, key=lambda sample: sample.sample_index):
        if sample.task_id in chosen:
            chosen[sample.task_id].append(sample)
    missing = [task_id for task_id, own in chosen.items() if not own]
    if missing and partial and len(missing) < len(chosen):
        chosen = {task_id: own for task_id, own in chosen.items() if own}
    elif missing:
        more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
        names = f"{', '.join(missing[:_NAMES_SHOWN])}{more}"
        raise InputError(f"no samples for {len(missing)} of {len(chosen)} problems: {names}; --partial scores the others")
    fewest, task_id = min((len(own), task_id) for task_id, own in chosen.items())
    if max(ks) > fewest:
        raise InputError(f"pass@{max(ks)} needs {max(ks)} samples a problem; {task_id} has {fewest}; choose a smaller --k")
    return chosen


def score(verdicts: Mapping[str, Sequence[bool]], ks: Sequence[int]) -> dict[str, Any]:
    """The score part of a results file.

    Args:
        verdicts: for each problem, whether each of its samples passed.
        ks: the k's of pass@k; none above the number of samples of any problem.

    Returns:
        `num_problems`, `num_samples` (a problem; the fewest, where they differ), `pass_at_k`, `confidence_95`.
    """
    counts = [(len(own), sum(own)) for own in verdicts.values()]
    estimates = {str(k): mean_pass_at_k(counts, k) for k in ks}
    return {
        "num_problems": len(counts),
        "num_samples": min(n for n, _ in counts),
        "pass_at_k": {k: mean for k, (mean, _) in estimates.items()},
        "confidence_95": {k: list(interval) for k, (_, interval) in estimates.items()},
    }


def score_groups(
    groups: Mapping[str, str | None], verdicts: Mapping[str, Sequence[bool]], ks: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """The score of each group (library), by name; empty where problems have none.

    Args:
        groups: each problem's group.
        verdicts: for each problem, whether each of its samples passed.
        ks: the k's of pass@k.
    """
    names = sorted({group for task_id in verdicts if (group := groups[task_id]) is not None})
    return {name: score({task: own for task, own in verdicts.items() if groups[task] == name}, ks) for name in names}
