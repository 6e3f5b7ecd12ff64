"""The filters that a run has, in the order in which they are asked: what costs nothing first, what calls the teacher last."""

import dataclasses

from wizardcoder_jax.config import FiltersConfig
from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
from wizardcoder_jax.evol_instruct.contamination.contamination_judge import contamination_judge
from wizardcoder_jax.evol_instruct.elimination_rules import Rule
from wizardcoder_jax.evol_instruct.execution_filter import Run, execution_judge
from wizardcoder_jax.evol_instruct.judges import Judge
from wizardcoder_jax.evol_instruct.malicious_requests import MALICIOUS_JUDGE, MALICIOUS_RULE
from wizardcoder_jax.evol_instruct.near_duplicates import NearDuplicates


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterChain:
    """What is checked besides the paper's rules.

    Attributes:
        rules: for seeds, evolved instructions and answers.
        seed_judges: for seeds; the execution filter is not among them, as seeds are given and not made.
        judges: for evolutions, after the information gain.
        ordered: compare records with those before them.
    """

    rules: tuple[Rule, ...]
    seed_judges: tuple[Judge, ...]
    judges: tuple[Judge, ...]
    ordered: tuple[NearDuplicates, ...]

    @staticmethod
    def of(config: FiltersConfig, contamination: ContaminationDetector | None, run: Run | None) -> "FilterChain":
        """The filters that the settings name.

        Args:
            config: the settings.
            contamination: the problems that no record may hold; None for no such check.
            run: runs programs; needed where the settings want execution.
        """
        rules = () if config.malicious == "off" else (MALICIOUS_RULE,)
        rules += () if contamination is None else (contamination.rule,)
        asked = (MALICIOUS_JUDGE,) if config.malicious == "judge" else ()
        asked += (contamination_judge(contamination),) if contamination is not None and config.judge_contamination else ()
        executed = (execution_judge(run),) if config.execution and run is not None else ()
        ordered = (NearDuplicates(config.near_duplicate_threshold),) if config.near_duplicates else ()
        return FilterChain(rules=rules, seed_judges=asked, judges=(*asked, *executed), ordered=ordered)
