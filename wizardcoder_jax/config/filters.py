"""Settings of evolve's filters beyond the paper's elimination rules."""

import dataclasses
import os
from typing import Literal

from wizardcoder_jax.config.field_checks import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiltersConfig:
    """What is dropped besides; all but the rule of malicious requests is off, as in the paper."""

    execution: bool = False  # run answers that hold Python in the sandbox, with asserts that the teacher writes for them
    execution_timeout_s: float = 5.0  # CPU seconds of one program
    execution_workers: int = os.cpu_count() or 1  # programs run at once
    unsafe_no_sandbox: bool = False  # run programs without isolation
    near_duplicates: bool = False  # drop records whose instruction or code is almost that of an earlier one
    near_duplicate_threshold: float = 0.9  # likeness (Jaccard index of n-grams) from which on they are dropped
    malicious: Literal["off", "keywords", "judge"] = "keywords"  # requests for malicious code: by phrases, or the teacher too
    judge_contamination: bool = False  # with benchmarks_dir: ask the teacher about the problems most like a record

    def __post_init__(self) -> None:
        require(self.execution_timeout_s > 0, f"filters.execution_timeout_s must be > 0, got {self.execution_timeout_s}")
        require(self.execution_workers >= 1, f"filters.execution_workers must be at least 1, got {self.execution_workers}")
        threshold = self.near_duplicate_threshold
        require(0 < threshold <= 1, f"filters.near_duplicate_threshold must be above 0, at most 1, got {threshold}")
