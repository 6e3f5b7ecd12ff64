"""The catalog of benchmarks. To add a benchmark, write a module in this folder and add an entry to BENCHMARKS."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import PurePosixPath

from wizardcoder_jax.benchmarks import ds1000, evalplus, humaneval, mbpp, mini, multipl_e
from wizardcoder_jax.benchmarks.problem import Benchmark, Problem
from wizardcoder_jax.benchmarks.problem_sources import hash_content
from wizardcoder_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkEntry:
    """How to locate and read one benchmark."""

    locate: Callable[..., tuple[str, str]]  # returns the path of the problem file and a label that names its source
    read: Callable[..., tuple[Problem, ...]]
    timeout_s: float = 3.0
    split: str | None = None  # name of the default split; None if the benchmark has no splits
    has_versions: bool = False
    runs_anywhere: bool = True  # see Benchmark.runs_anywhere


_PLUS = {"timeout_s": evalplus.TIMEOUT_S, "has_versions": True}
_MBPP = {"read": mbpp.read_problems, "timeout_s": mbpp.TIMEOUT_S}

BENCHMARKS: dict[str, BenchmarkEntry] = {
    "humaneval": BenchmarkEntry(locate=humaneval.locate, read=humaneval.read_problems),
    "humaneval+": BenchmarkEntry(
        locate=functools.partial(evalplus.locate, "humaneval+"), read=evalplus.read_humaneval_plus, **_PLUS
    ),
    "mbpp": BenchmarkEntry(locate=mbpp.locate, split="test", **_MBPP),
    "mbpp-sanitized": BenchmarkEntry(locate=mbpp.locate_sanitized, split="all", **_MBPP),
    "mbpp+": BenchmarkEntry(locate=functools.partial(evalplus.locate, "mbpp+"), read=evalplus.read_mbpp_plus, **_PLUS),
    "ds1000": BenchmarkEntry(locate=ds1000.locate, read=ds1000.read_problems, timeout_s=ds1000.TIMEOUT_S, runs_anywhere=False),
    **{
        f"multipl-e-{language}": BenchmarkEntry(
            locate=functools.partial(multipl_e.locate, language),
            read=functools.partial(multipl_e.read_problems, language=language),
            timeout_s=multipl_e.TIMEOUT_S,
        )
        for language in multipl_e.LANGUAGES
    },
    "mini": BenchmarkEntry(locate=mini.locate_mini, read=humaneval.read_problems),
    "mini-dev": BenchmarkEntry(locate=mini.locate_mini_dev, read=humaneval.read_problems),
}


def load_benchmark(
    name: str, benchmark_file: str | None = None, *, split: str | None = None, version: str | None = None
) -> Benchmark:
    """Load a benchmark by name.

    Args:
        name: a key of BENCHMARKS.
        benchmark_file: path of a problem file to use instead of the benchmark's own, in the same format.
        split: the split of MBPP; None for the default split.
        version: the release of HumanEval+ or MBPP+; None for the newest.

    Raises:
        InputError: the benchmark, split or version is unknown, or the problems are missing or malformed.
    """
    if name not in BENCHMARKS:
        raise InputError(f"unknown benchmark {name!r}; supported: {', '.join(BENCHMARKS)}")
    entry = BENCHMARKS[name]
    if split is not None and entry.split is None:
        raise InputError(f"{name} has no splits; remove --split")
    if version is not None and (not entry.has_versions or benchmark_file is not None):
        names = " and ".join(evalplus.VERSIONS)
        raise InputError(f"--benchmark-version is only for {names}, and not with --benchmark-file; remove it")
    if benchmark_file:
        path, label = benchmark_file, PurePosixPath(benchmark_file).name
    else:
        path, label = entry.locate(version) if entry.has_versions else entry.locate()
    split = split or entry.split
    problems = entry.read(path) if split is None else entry.read(path, split)
    return Benchmark(
        name=name,
        version=f"{label}{'' if split is None else f' split {split}'} sha256:{hash_content(path)}",
        problems=problems,
        timeout_s=entry.timeout_s,
        runs_anywhere=entry.runs_anywhere,
    )
