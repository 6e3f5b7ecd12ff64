"""The rounds of Code Evol-Instruct: each evolves what the round before left, failed ones return unchanged.

Records stream: each outcome is handed on in the order of the pool as soon as those before it are, and the pool of a round is
read back from what the rounds before it wrote, so that memory does not grow with their number. A round begins while the last
records of the one before are still in progress, so that the teacher is kept busy.

Source: WizardCoder, arXiv 2306.08568v2, section 3.1; WizardLM, arXiv 2304.12244, section 3.2 (a failed evolution is dropped and
its parent goes back to the pool).
"""

import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Protocol

from wizardcoder_jax.core.progress import Progress
from wizardcoder_jax.evol_instruct.record_evolver import Outcome, RecordEvolver, SeedSource
from wizardcoder_jax.evol_instruct.records import Record, Rejection
from wizardcoder_jax.llm_client.ordered_map import map_in_order

Step = Callable[[], Awaitable[Outcome | None]]


class SequentialFilter(Protocol):
    """A check whose verdict depends on the records before; it sees them in the order of the pools, in one thread."""

    @property
    def name(self) -> str:
        """Of the elimination rule."""
        ...

    def check(self, record: Record) -> str | None:
        """Evidence against the record; None if it passes, which is remembered."""
        ...


class RoundStore(Protocol):
    """Where outcomes go, and where the pools come from."""

    def writing(self, round_: int) -> contextlib.AbstractContextManager[Callable[[Outcome], None]]:
        """Takes the outcomes of a round, in the order of its pool; the round is whole when the context ends."""
        ...

    def pool(self, round_: int) -> Iterator[Record | None]:
        """What a round evolves: for each seed that passed, its newest record of the rounds before, in the seeds' order.

        None where the next is not known yet: more has to be written first.
        """
        ...

    def pool_size(self) -> int:
        """Records in each pool: seeds that passed."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds:
    """Makes round 0 of the seeds, then evolves them round by round.

    The results do not depend on `concurrency`: every choice is a function of the run seed, the record and the round.

    Attributes:
        evolution: what is done to one record.
        filters: what is compared with the records before it, after all else.
        store: takes the records.
        concurrency: records in progress together.
    """

    evolution: RecordEvolver
    store: RoundStore
    concurrency: int
    filters: tuple[SequentialFilter, ...] = ()

    async def run(self, sources: Iterable[SeedSource], num_sources: int, num_rounds: int) -> None:
        """All rounds.

        Args:
            sources: the seeds, or what they are made of; read once, a few ahead.
            num_sources: how many there are.
            num_rounds: after round 0.

        Raises:
            InputError, StoppedEarlyError: as the teacher, the budget and the ledger.
        """
        steps = self._steps(sources, num_rounds)
        async with contextlib.aclosing(map_in_order(_taken, steps, self.concurrency)) as outcomes:
            await self._round("read seeds", 0, outcomes, num_sources)
            for round_ in range(1, num_rounds + 1):
                await self._round(f"evolve round {round_}", round_, outcomes, self.store.pool_size())

    def _steps(self, sources: Iterable[SeedSource], num_rounds: int) -> Iterator[Step | None]:
        """What is done, in order; a step without an outcome ends each round. None where the next step is not known yet."""
        for source in sources:
            yield functools.partial(self.evolution.begin, source)
        yield _ended
        for round_ in range(1, num_rounds + 1):
            for parent in self.store.pool(round_):
                yield None if parent is None else functools.partial(self.evolution.evolve, parent, round_)
            yield _ended

    async def _round(self, label: str, round_: int, outcomes: AsyncIterator[Outcome | None], size: int) -> None:
        num_rejected = 0
        with Progress(label, size, "record") as progress, self.store.writing(round_) as write:
            while (outcome := await anext(outcomes)) is not None:
                compared = self._compared(outcome)
                write(compared)
                num_rejected += isinstance(compared, Rejection)
                progress.update(rejected=num_rejected)

    def _compared(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Rejection):
            return outcome
        record = outcome
        for filter_ in self.filters:
            evidence = filter_.check(record)
            if evidence is not None:
                return Rejection(record=record, rule=filter_.name, evidence=evidence)
            record = dataclasses.replace(record, filters=(*record.filters, filter_.name))
        return record


async def _taken(step: Step) -> Outcome | None:
    return await step()


async def _ended() -> None:
    return None
