"""One evolution of one record: evolve its instruction, answer it, then apply the elimination rules and judges.

Source: WizardCoder, arXiv 2306.08568v2, section 3.1; WizardLM, arXiv 2304.12244, section 3.2 (failed evolutions are rejected).
"""

import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from wizardcoder_jax.evol_instruct import elimination_rules
from wizardcoder_jax.evol_instruct.elimination_rules import CandidateRecord, Rule
from wizardcoder_jax.evol_instruct.evolution_prompt import EvolutionSampler
from wizardcoder_jax.evol_instruct.judges import INFORMATION_GAIN, AskTeacher, Judge
from wizardcoder_jax.evol_instruct.records import Record, Rejection, evolved_id, replace_surrogates
from wizardcoder_jax.evol_instruct.teacher_calls import CallTeacher, RecordCalls

Outcome = Record | Rejection


class SeedSource(Protocol):
    """The source of a record of round 0: the seed record itself, or a code snippet."""

    @property
    def id(self) -> str:
        """Id that depends only on the content."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordEvolver:
    """Creates the records of round 0, and evolves records in later rounds.

    Attributes:
        call_teacher: function that calls the teacher model.
        sampler: samples the method and the programming language of each evolution.
        instruction_rules: rules for the evolved instruction, applied before it is answered.
        response_rules: rules for the evolved instruction with its answer.
        judges: judges for the evolved instruction with its answer, applied in order after the response rules.
        seed_rules: rules for seeds, applied to the instruction alone and then to the instruction with its output.
        seed_judges: judges for seeds, applied in order after the seed rules.
        make_seed: function that makes a record of round 0, without its usage, from another source such as a code snippet; None
            if all sources are records already.
    """

    call_teacher: CallTeacher
    sampler: EvolutionSampler
    instruction_rules: tuple[Rule, ...] = elimination_rules.INSTRUCTION_RULES
    response_rules: tuple[Rule, ...] = elimination_rules.RESPONSE_RULES
    judges: tuple[Judge, ...] = (INFORMATION_GAIN,)
    seed_rules: tuple[Rule, ...] = ()
    seed_judges: tuple[Judge, ...] = ()
    make_seed: Callable[[Any, AskTeacher], Awaitable[Outcome]] | None = None

    async def start(self, source: SeedSource) -> Outcome:
        """Return the record of round 0 that is made from `source`, or its rejection."""
        calls = RecordCalls(self.call_teacher, source.id, 0)
        made = source if self.make_seed is None else await self.make_seed(source, calls)
        if isinstance(made, Rejection):
            return dataclasses.replace(made, record=_with_usage(made.record, calls))
        assert isinstance(made, Record)
        unanswered = CandidateRecord(
            parent_instruction="", instruction=made.instruction, task=made.task, language=made.language
        )
        answered = dataclasses.replace(unanswered, response=made.output)
        checks = _Checks(calls)
        failure = checks.apply_rules(self.seed_rules, unanswered) or checks.apply_rules(self.seed_rules, answered)
        failure = failure or await checks.apply_judges(self.seed_judges, answered)
        record = dataclasses.replace(_with_usage(made, calls), filters=(*made.filters, *checks.passed))
        return _outcome(record, failure)

    async def evolve(self, parent: Record, round_: int) -> Outcome:
        """Return the record that is evolved from `parent` in round `round_`, or its rejection."""
        calls = RecordCalls(self.call_teacher, parent.id, round_)
        request, checks = self.sampler.sample(parent, round_), _Checks(calls)
        evolved = await calls(request.prompt, "evolve")
        candidate, teacher = request.candidate(evolved.text.strip(), evolved.finish_reason), evolved.model
        failure = checks.apply_rules(self.instruction_rules, candidate)
        if failure is None:
            answer = await calls(request.answer_prompt(candidate.instruction), "answer")
            candidate = dataclasses.replace(candidate, response=answer.text, finish_reason=answer.finish_reason)
            teacher = answer.model
            failure = checks.apply_rules(self.response_rules, candidate)
            failure = failure or await checks.apply_judges(self.judges, candidate)
        # Rejected strings may contain lone surrogates, which cannot be written to a file; strings that passed contain none.
        instruction, output = replace_surrogates(candidate.instruction), replace_surrogates(candidate.response or "")
        record = Record(
            id=evolved_id(parent.id, round_, instruction, output),
            parent_id=parent.id,
            seed_id=parent.seed_id,
            round=round_,
            method=request.method.number,
            instruction=instruction,
            output=output,
            teacher=replace_surrogates(teacher),
            filters=checks.passed,
            task=candidate.task,
            language=candidate.language,
        )
        return _outcome(_with_usage(record, calls), failure)


class _Checks:
    """Applies rules and judges to one record, and collects the names of those that it passed."""

    def __init__(self, ask_teacher: AskTeacher) -> None:
        self._ask_teacher = ask_teacher
        self._passed: dict[str, None] = {}  # names of the passed rules and judges; the dict serves as an ordered set

    @property
    def passed(self) -> tuple[str, ...]:
        return tuple(self._passed)

    def apply_rules(self, rules: tuple[Rule, ...], candidate: CandidateRecord) -> tuple[str, str] | None:
        """Return (rule name, evidence) of the first rule that the candidate fails, or None if it passes all rules."""
        failure = elimination_rules.first_failure(rules, candidate)
        if failure is None:
            self._mark_passed(rule.name for rule in rules)
        return failure

    async def apply_judges(self, judges: tuple[Judge, ...], candidate: CandidateRecord) -> tuple[str, str] | None:
        """Return (judge name, evidence) of the first judge that rejects the candidate, or None if all judges accept it."""
        for judge in judges:
            verdict = await judge.check(candidate, self._ask_teacher)
            if isinstance(verdict, str):
                return judge.name, verdict
            self._mark_passed([judge.name if verdict is None else f"{judge.name}:unchecked:{verdict.reason}"])
        return None

    def _mark_passed(self, names: Iterable[str]) -> None:
        self._passed.update(dict.fromkeys(names))


def _with_usage(record: Record, calls: RecordCalls) -> Record:
    return dataclasses.replace(record, usage=calls.usage, call_ids=calls.call_ids)


def _outcome(record: Record, failure: tuple[str, str] | None) -> Outcome:
    if failure is None:
        return record
    rule, evidence = failure
    return Rejection(record=record, rule=rule, evidence=replace_surrogates(evidence))
