"""The rounds of Code Evol-Instruct: each evolves what the round before left, failed ones return unchanged.

Source: WizardCoder, arXiv 2306.08568v2, section 3.1; WizardLM, arXiv 2304.12244, section 3.2 (a failed evolution is dropped and
its parent goes back to the pool).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

from wizardcoder_jax.clients.completion import Completion
from wizardcoder_jax.clients.workers import map_in_order
from wizardcoder_jax.instructions import rules
from wizardcoder_jax.instructions.methods import Method, draw_method
from wizardcoder_jax.instructions.records import Record, Rejection, Usage, evolved_id
from wizardcoder_jax.instructions.rules import Candidate, Rule
from wizardcoder_jax.progress import Progress


class Ask(Protocol):
    """Asks the teacher one prompt on behalf of one record; `Calls.ask` is one."""

    def __call__(self, prompt: str, *, purpose: str, record_id: str, round_: int) -> tuple[Completion, Usage]:
        """The answer and what it cost."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evolution:
    """How records are evolved.

    Attributes:
        ask: the way to the teacher.
        run_seed: of the method draws.
        judge_information_gain: whether the teacher judges each evolution equal to its parent or not.
        extra_rules: checked after our own, on the instruction and again on the response, and on the seeds
            (decontamination, for one).
    """

    ask: Ask
    run_seed: int
    judge_information_gain: bool = True
    extra_rules: tuple[Rule, ...] = ()

    def evolve(self, parent: Record, round_: int) -> Record | Rejection:
        """One record's step: a harder instruction, the response to it alone, the rules."""
        return _Step(self, parent, round_).run()

    def screen(self, seed: Record) -> Record | Rejection:
        """The seed, if the extra rules pass it."""
        candidate = Candidate(parent_instruction="", instruction=seed.instruction)
        for part in (candidate, dataclasses.replace(candidate, response=seed.output)):
            failure = rules.first_failure(self.extra_rules, part)
            if failure is not None:
                return Rejection(record=seed, rule=failure[0], evidence=failure[1])
        return dataclasses.replace(seed, filters=tuple(rule.name for rule in self.extra_rules))


class _Step:
    """The calls of one record in one round; the first failed rule ends them."""

    def __init__(self, evolution: Evolution, parent: Record, round_: int) -> None:
        self._evolution, self._parent, self._round = evolution, parent, round_
        self._method: Method = draw_method(evolution.run_seed, parent.id, round_)
        self._usage = Usage()
        self._model: str | None = None
        self._passed: dict[str, None] = {}  # rule names, in order, each once

    def run(self) -> Record | Rejection:
        parent = self._parent.instruction
        evolved = self._ask(self._method.prompt(parent), "evolve")
        candidate = Candidate(parent_instruction=parent, instruction=evolved.text.strip(), finish_reason=evolved.finish_reason)
        rejection = self._checked(candidate, rules.INSTRUCTION_RULES)
        if rejection is not None:
            return rejection
        answer = self._ask(candidate.instruction, "answer")
        self._model = answer.model
        candidate = dataclasses.replace(candidate, response=answer.text, finish_reason=answer.finish_reason)
        return self._checked(candidate, rules.RESPONSE_RULES) or self._judged(candidate) or self._record(candidate)

    def _ask(self, prompt: str, purpose: str) -> Completion:
        completion, usage = self._evolution.ask(prompt, purpose=purpose, record_id=self._parent.id, round_=self._round)
        self._usage += usage
        self._model = self._model or completion.model
        return completion

    def _checked(self, candidate: Candidate, own_rules: tuple[Rule, ...]) -> Rejection | None:
        checked = (*own_rules, *self._evolution.extra_rules)
        failure = rules.first_failure(checked, candidate)
        if failure is not None:
            return self._rejection(candidate, *failure)
        self._passed.update(dict.fromkeys(rule.name for rule in checked))
        return None

    def _judged(self, candidate: Candidate) -> Rejection | None:
        if not self._evolution.judge_information_gain:
            return None
        prompt = rules.EQUALITY_PROMPT.format(first=candidate.parent_instruction, second=candidate.instruction)
        judgement = self._ask(prompt, "judge").text
        if rules.is_equal_verdict(judgement):
            return self._rejection(candidate, rules.NO_INFORMATION_GAIN, rules.excerpt(judgement))
        self._passed[rules.NO_INFORMATION_GAIN] = None
        return None

    def _record(self, candidate: Candidate) -> Record:
        # A rejected text may hold lone surrogates, which no file can; a record that passed holds none.
        instruction, output = _writable(candidate.instruction), _writable(candidate.response or "")
        return Record(
            id=evolved_id(self._parent.id, self._round, instruction, output),
            parent_id=self._parent.id,
            seed_id=self._parent.seed_id,
            round=self._round,
            method=self._method.number,
            instruction=instruction,
            output=output,
            teacher=self._model,
            usage=self._usage,
            filters=tuple(self._passed),
        )

    def _rejection(self, candidate: Candidate, rule: str, evidence: str) -> Rejection:
        return Rejection(record=self._record(candidate), rule=rule, evidence=_writable(evidence))


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundResult:
    """What one round kept and dropped, in the order of its pool; round 0 holds the seeds."""

    round: int
    pool_size: int
    kept: tuple[Record, ...]
    rejected: tuple[Rejection, ...]


def run_rounds(evolution: Evolution, seeds: Sequence[Record], num_rounds: int, *, concurrency: int) -> Iterator[RoundResult]:
    """Screens the seeds (round 0), then evolves them round by round.

    The results do not depend on `concurrency`: every choice is a function of the run seed, the record and the round.
    """
    outcomes: list[Record | Rejection] = [evolution.screen(seed) for seed in seeds]
    yield _result(0, outcomes)
    pool = [outcome for outcome in outcomes if isinstance(outcome, Record)]
    for round_ in range(1, num_rounds + 1):
        outcomes = _run_round(evolution, pool, round_, concurrency)
        yield _result(round_, outcomes)
        # Each survivor goes on; a failed evolution returns its parent unchanged.
        pool = [outcome if isinstance(outcome, Record) else parent for parent, outcome in zip(pool, outcomes, strict=True)]


def _run_round(evolution: Evolution, pool: Sequence[Record], round_: int, concurrency: int) -> list[Record | Rejection]:
    num_rejected = 0
    with Progress(f"evolve round {round_}", len(pool), "record") as progress:

        def show(outcome: Record | Rejection) -> None:
            nonlocal num_rejected
            num_rejected += isinstance(outcome, Rejection)
            progress.update(rejected=num_rejected)

        return map_in_order(lambda parent: evolution.evolve(parent, round_), pool, concurrency, show)


def _result(round_: int, outcomes: Sequence[Record | Rejection]) -> RoundResult:
    return RoundResult(
        round=round_,
        pool_size=len(outcomes),
        kept=tuple(outcome for outcome in outcomes if isinstance(outcome, Record)),
        rejected=tuple(outcome for outcome in outcomes if isinstance(outcome, Rejection)),
    )
