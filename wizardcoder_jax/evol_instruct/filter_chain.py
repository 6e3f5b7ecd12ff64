"""The optional filters of a run: rules first, because they are cheap, then judges, which ask the teacher or run programs."""

import dataclasses

from wizardcoder_jax.config import FiltersConfig
from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
from wizardcoder_jax.evol_instruct.contamination.contamination_judge import contamination_judge
from wizardcoder_jax.evol_instruct.elimination_rules import Rule
from wizardcoder_jax.evol_instruct.execution_filter import RunProgram, execution_judge
from wizardcoder_jax.evol_instruct.judges import Judge
from wizardcoder_jax.evol_instruct.malicious_requests import MALICIOUS_JUDGE, MALICIOUS_RULE
from wizardcoder_jax.evol_instruct.near_duplicates import NearDuplicateFilter


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterChain:
    """Filters that a run applies in addition to the elimination rules.

    Attributes:
        rules: rules for seeds, evolved instructions and answers.
        seed_judges: judges for seeds. The execution filter is not included, because seeds come from the user, not from a model.
        judges: judges for evolved records, after the judge of information gain.
        sequential: filters that compare each record with all earlier records.
    """

    rules: tuple[Rule, ...]
    seed_judges: tuple[Judge, ...]
    judges: tuple[Judge, ...]
    sequential: tuple[NearDuplicateFilter, ...]


def build_filter_chain(
    config: FiltersConfig, detector: ContaminationDetector | None, run_program: RunProgram | None
) -> FilterChain:
    """Build the filters enabled in the settings.

    Args:
        config: the settings.
        detector: detector of benchmark problems; None to skip decontamination.
        run_program: function that runs programs; None only if `config.execution` is off.
    """
    rules = () if config.malicious == "off" else (MALICIOUS_RULE,)
    rules += () if detector is None else (detector.rule,)
    teacher_judges = (MALICIOUS_JUDGE,) if config.malicious == "judge" else ()
    teacher_judges += (contamination_judge(detector),) if detector is not None and config.judge_contamination else ()
    execution_judges = (execution_judge(run_program),) if config.execution and run_program is not None else ()
    sequential = (NearDuplicateFilter(config.near_duplicate_threshold),) if config.near_duplicates else ()
    return FilterChain(
        rules=rules, seed_judges=teacher_judges, judges=(*teacher_judges, *execution_judges), sequential=sequential
    )
