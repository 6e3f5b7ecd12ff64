"""Selects the samples to score, and computes pass@k scores from verdicts."""

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
    """Group samples by task id, in problem order, and sort each group by sample index; drop samples of other problems.

    Args:
        benchmark: the problems to score.
        samples: samples of these and possibly other problems.
        ks: the values of k for pass@k.
        partial: whether to leave out problems without samples instead of raising an error.

    Raises:
        InputError: a problem has no samples, or fewer samples than the largest k.
    """
    chosen: dict[str, list[Sample]] = {problem.task_id: [] for problem in benchmark.problems}
    for sample in sorted(samples, key=lambda sample: sample.sample_index):
        if sample.task_id in chosen:
            chosen[sample.task_id].append(sample)
    missing = [task_id for task_id, task_samples in chosen.items() if not task_samples]
    if missing and partial and len(missing) < len(chosen):
        chosen = {task_id: task_samples for task_id, task_samples in chosen.items() if task_samples}
    elif missing:
        more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
        names = f"{', '.join(missing[:_NAMES_SHOWN])}{more}"
        raise InputError(f"no samples for {len(missing)} of {len(chosen)} problems: {names}; use --partial to score the rest")
    fewest, task_id = min((len(task_samples), task_id) for task_id, task_samples in chosen.items())
    if max(ks) > fewest:
        raise InputError(f"pass@{max(ks)} needs {max(ks)} samples per problem; {task_id} has {fewest}; choose a smaller --k")
    return chosen


def compute_score(verdicts: Mapping[str, Sequence[bool]], ks: Sequence[int]) -> dict[str, Any]:
    """Return the scores as a results file stores them.

    Args:
        verdicts: for each task id, whether each of its samples passed.
        ks: the values of k for pass@k, at most the smallest number of samples of a problem.

    Returns:
        `num_problems`, `num_samples` (per problem; the minimum if they differ), `pass_at_k`, `confidence_95`.
    """
    counts = [(len(passed), sum(passed)) for passed in verdicts.values()]
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
    """Return the scores of each group of problems (e.g. of each library) by group name; empty if there are no groups.

    Args:
        groups: for each task id, the name of its group, or None.
        verdicts: for each task id, whether each of its samples passed.
        ks: the values of k for pass@k.
    """
    names = sorted({group for task_id in verdicts if (group := groups[task_id]) is not None})
    by_group = {name: {task_id: verdicts[task_id] for task_id in verdicts if groups[task_id] == name} for name in names}
    return {name: compute_score(group_verdicts, ks) for name, group_verdicts in by_group.items()}
