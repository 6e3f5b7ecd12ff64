"""The table of benchmarks: a new benchmark is one file in this folder and one row here."""

import hashlib
from collections.abc import Callable
from pathlib import PurePosixPath

from wizardcoder_jax.benchmarks import humaneval, mini
from wizardcoder_jax.benchmarks.problem import Benchmark
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.files import open_bytes

BENCHMARKS: dict[str, Callable[[], tuple[str, str]]] = {  # name -> finds the problem file: (path, label)
    "humaneval": humaneval.locate,
    "mini": mini.locate_mini,
    "mini-dev": mini.locate_mini_dev,
}


def load_benchmark(name: str, benchmark_file: str | None = None) -> Benchmark:
    """Loads a benchmark by name.

    Args:
        name: a key of BENCHMARKS.
        benchmark_file: problems to use instead of the benchmark's own file; the form is the benchmark's.

    Raises:
        InputError: no such benchmark, or its problems are missing or malformed.
    """
    if name not in BENCHMARKS:
        raise InputError(f"no benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    path, label = (benchmark_file, PurePosixPath(benchmark_file).name) if benchmark_file else BENCHMARKS[name]()
    problems = humaneval.read_problems(path)
    with open_bytes(path) as file:  # decompressed: the same problems have the same hash, plain or .gz
        digest = hashlib.sha256(file.read()).hexdigest()
    return Benchmark(name=name, version=f"{label} sha256:{digest[:12]}", problems=problems)
