"""From verdicts to a score: which samples are scored, and the pass@k part of a results file."""

from collections.abc import Mapping, Sequence
from typing import Any

from wizardcoder_jax.benchmarks.pass_at_k import mean_pass_at_k
from wizardcoder_jax.benchmarks.problem import Benchmark
from wizardcoder_jax.benchmarks.samples import Sample
from wizardcoder_jax.errors import InputError

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


def comparable(results_a: Mapping[str, Any], results_b: Mapping[str, Any]) -> str | None:
    """Why two results files must not be compared; None where they may.

    Args:
        results_a: the content of one results.json.
        results_b: that of the other.
    """
    reasons = [
        f"{what} {a!r} and {b!r}"
        for key, what in (("benchmark", "benchmarks"), ("benchmark_version", "versions"), ("protocol", "protocols"))
        if (a := _identity(key, results_a)) != (b := _identity(key, results_b))
    ]
    if set(results_a.get("problems", ())) != set(results_b.get("problems", ())):
        reasons.append("the problems that were scored")
    return f"they differ in {', '.join(reasons)}" if reasons else None


def _identity(key: str, results: Mapping[str, Any]) -> Any:
    """What is compared: of a version only the hash of the problems, as the same file has many names."""
    value = results.get(key)
    return value.rpartition("sha256:")[2] if key == "benchmark_version" and isinstance(value, str) else value
