"""Settings of the filters that evolve offers in addition to the paper's elimination rules."""

import dataclasses
import os
from typing import Literal

from wizardcoder_jax.config.field_checks import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiltersConfig:
    """Additional filters. All are off, as in the paper, except for the rule against malicious requests."""

    execution: bool = False  # run answers with Python code in the sandbox, with asserts written by the teacher
    execution_timeout_s: float = 5.0  # CPU seconds per program
    execution_workers: int = os.cpu_count() or 1  # number of programs that run concurrently
    unsafe_no_sandbox: bool = False  # run programs without isolation
    near_duplicates: bool = False  # drop records whose instruction or code nearly equals that of an earlier record
    near_duplicate_threshold: float = 0.9  # minimum similarity (Jaccard index of n-grams) of near-duplicates
    malicious: Literal["off", "keywords", "judge"] = "keywords"  # drop requests for malicious code; judge: ask the teacher too
    judge_contamination: bool = False  # with --benchmarks-dir: let the teacher compare records with the most similar problems

    def __post_init__(self) -> None:
        require(self.execution_timeout_s > 0, f"filters.execution_timeout_s must be > 0, got {self.execution_timeout_s}")
        require(self.execution_workers >= 1, f"filters.execution_workers must be at least 1, got {self.execution_workers}")
        threshold = self.near_duplicate_threshold
        require(0 < threshold <= 1, f"filters.near_duplicate_threshold must be in (0, 1], got {threshold}")
