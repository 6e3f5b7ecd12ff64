"""One record's step in one round: a harder instruction, the response to it alone, the rules and the judges.

Source: WizardCoder, arXiv 2306.08568v2, section 3.1; WizardLM, arXiv 2304.12244, section 3.2 (a failed evolution is dropped).
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
    """What a record of round 0 is made of: a seed, or a snippet of code."""

    @property
    def id(self) -> str:
        """Its own name, a function of its content."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordEvolver:
    """How records are made and evolved.

    Attributes:
        ask: the way to the teacher.
        recipe: what is drawn, and in which words it is asked for.
        instruction_rules: for the evolved instruction, before it is answered.
        response_rules: for the answer.
        judges: after the response rules, in order.
        seed_rules: for a seed's instruction, and again with its output.
        seed_judges: after the seed rules, in order.
        make_seed: makes a record of round 0, without its costs, of a source that is no record yet; None where all are.
    """

    ask: CallTeacher
    recipe: EvolutionSampler
    instruction_rules: tuple[Rule, ...] = elimination_rules.INSTRUCTION_RULES
    response_rules: tuple[Rule, ...] = elimination_rules.RESPONSE_RULES
    judges: tuple[Judge, ...] = (INFORMATION_GAIN,)
    seed_rules: tuple[Rule, ...] = ()
    seed_judges: tuple[Judge, ...] = ()
    make_seed: Callable[[Any, AskTeacher], Awaitable[Outcome]] | None = None

    async def begin(self, source: SeedSource) -> Outcome:
        """A record of round 0, or why there is none."""
        inquiry = RecordCalls(self.ask, source.id, 0)
        made = source if self.make_seed is None else await self.make_seed(source, inquiry)
        if isinstance(made, Rejection):
            return dataclasses.replace(made, record=_with_cost(made.record, inquiry))
        assert isinstance(made, Record)
        question = CandidateRecord(parent_instruction="", instruction=made.instruction, task=made.task, language=made.language)
        whole = dataclasses.replace(question, response=made.output)
        checks = _Checks(inquiry)
        failure = checks.first_failure(self.seed_rules, question) or checks.first_failure(self.seed_rules, whole)
        failure = failure or await checks.first_verdict(self.seed_judges, whole)
        record = dataclasses.replace(_with_cost(made, inquiry), filters=(*made.filters, *checks.passed))
        return record if failure is None else Rejection(record=record, rule=failure[0], evidence=replace_surrogates(failure[1]))

    async def evolve(self, parent: Record, round_: int) -> Outcome:
        """The record that `parent` becomes in a round, or why it does not."""
        inquiry = RecordCalls(self.ask, parent.id, round_)
        draft, checks = self.recipe.draft(parent, round_), _Checks(inquiry)
        evolved = await inquiry(draft.prompt, "evolve")
        candidate, teacher = draft.candidate(evolved.text.strip(), evolved.finish_reason), evolved.model
        failure = checks.first_failure(self.instruction_rules, candidate)
        if failure is None:
            answer = await inquiry(draft.answer_prompt(candidate.instruction), "answer")
            candidate = dataclasses.replace(candidate, response=answer.text, finish_reason=answer.finish_reason)
            teacher = answer.model
            failure = checks.first_failure(self.response_rules, candidate)
            failure = failure or await checks.first_verdict(self.judges, candidate)
        # A rejected text may hold lone surrogates, which no file can; a record that passed holds none.
        instruction, output = replace_surrogates(candidate.instruction), replace_surrogates(candidate.response or "")
        record = Record(
            id=evolved_id(parent.id, round_, instruction, output),
            parent_id=parent.id,
            seed_id=parent.seed_id,
            round=round_,
            method=draft.method.number,
            instruction=instruction,
            output=output,
            teacher=replace_surrogates(teacher),
            filters=checks.passed,
            task=candidate.task,
            language=candidate.language,
        )
        record = _with_cost(record, inquiry)
        return record if failure is None else Rejection(record=record, rule=failure[0], evidence=replace_surrogates(failure[1]))


class _Checks:
    """The rules and judges that a record has passed; the first that it fails ends them."""

    def __init__(self, question: AskTeacher) -> None:
        self._question = question
        self._passed: dict[str, None] = {}  # names, in order, each once

    @property
    def passed(self) -> tuple[str, ...]:
        return tuple(self._passed)

    def first_failure(self, checked: tuple[Rule, ...], candidate: CandidateRecord) -> tuple[str, str] | None:
        failure = elimination_rules.first_failure(checked, candidate)
        if failure is None:
            self._pass(rule.name for rule in checked)
        return failure

    async def first_verdict(self, judges: tuple[Judge, ...], candidate: CandidateRecord) -> tuple[str, str] | None:
        for judge in judges:
            verdict = await judge.check(candidate, self._question)
            if isinstance(verdict, str):
                return judge.name, verdict
            self._pass([judge.name if verdict is None else f"{judge.name}:unchecked:{verdict.reason}"])
        return None

    def _pass(self, names: Iterable[str]) -> None:
        self._passed.update(dict.fromkeys(names))


def _with_cost(record: Record, inquiry: RecordCalls) -> Record:
    return dataclasses.replace(record, usage=inquiry.usage, call_ids=inquiry.call_ids)
