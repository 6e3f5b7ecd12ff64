"""The rounds of Code Evol-Instruct: each round evolves a pool of records, which contains the newest record of each seed.

If an evolution fails, the new record is rejected, and its parent is evolved again in the next round.

Records are streamed. Outcomes are written in the order of the pool, each as soon as all earlier outcomes are written. The pool
of a round is read back from the files of the earlier rounds, so that memory does not grow with the number of records. A round
starts while the last records of the previous round are still in progress, so that the teacher model stays busy.

Source: WizardCoder, arXiv 2306.08568v2, section 3.1; WizardLM, arXiv 2304.12244, section 3.2 (a failed evolution is dropped and
its parent returns to the pool).
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
    """A check whose verdict depends on earlier records. A single thread calls it with the records in a fixed order."""

    @property
    def name(self) -> str:
        """Name of the filter, which is reported as the rule that rejected a record."""
        ...

    def check(self, record: Record) -> str | None:
        """Return evidence against the record, or None if it passes. Later verdicts may depend on records that passed."""
        ...


class RoundStore(Protocol):
    """Storage of the outcomes of all rounds, from which the pool of each round is read."""

    def write_round(self, round_: int) -> contextlib.AbstractContextManager[Callable[[Outcome], None]]:
        """Return a context manager that yields a function, which writes the next outcome of the round.

        Outcomes must be written in the order of the pool. The round is complete when the context ends.
        """
        ...

    def pool(self, round_: int) -> Iterator[Record | None]:
        """Yield the records that a round evolves: the newest record of each seed that passed, in the order of the seeds.

        Yields None while the next record is not known yet, because it depends on outcomes that have not been written.
        """
        ...

    def pool_size(self) -> int:
        """Return the number of records that each round evolves, which is the number of seeds that passed."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds:
    """The loop that creates round 0 from the seeds, then evolves it round by round.

    The results do not depend on `concurrency`: every random choice depends on the run seed, the record and the round only.

    Attributes:
        evolver: creates and evolves single records.
        store: storage of all outcomes.
        concurrency: maximum number of records in progress at the same time.
        filters: applied in order to each record that passed all rules and judges.
    """

    evolver: RecordEvolver
    store: RoundStore
    concurrency: int
    filters: tuple[SequentialFilter, ...] = ()

    async def run(self, sources: Iterable[SeedSource], num_sources: int, num_rounds: int) -> None:
        """Run all rounds.

        Args:
            sources: the seeds, or the code snippets to make seeds from; read once, while the round is running.
            num_sources: number of sources, for the progress bar.
            num_rounds: number of rounds after round 0.

        Raises:
            InputError, StoppedEarlyError: raised by the teacher, the budget or the ledger.
        """
        steps = self._steps(sources, num_rounds)
        async with contextlib.aclosing(map_in_order(_run_step, steps, self.concurrency)) as outcomes:
            await self._write_round("read seeds", 0, outcomes, num_sources)
            for round_ in range(1, num_rounds + 1):
                await self._write_round(f"evolve round {round_}", round_, outcomes, self.store.pool_size())

    def _steps(self, sources: Iterable[SeedSource], num_rounds: int) -> Iterator[Step | None]:
        """Yield the steps of all rounds in order; None while the next step is not known yet.

        The last step of each round returns None instead of an outcome, which marks the end of the round.
        """
        for source in sources:
            yield functools.partial(self.evolver.start, source)
        yield _end_round
        for round_ in range(1, num_rounds + 1):
            for parent in self.store.pool(round_):
                yield None if parent is None else functools.partial(self.evolver.evolve, parent, round_)
            yield _end_round

    async def _write_round(self, label: str, round_: int, outcomes: AsyncIterator[Outcome | None], size: int) -> None:
        num_rejected = 0
        with Progress(label, size, "record") as progress, self.store.write_round(round_) as write:
            while (outcome := await anext(outcomes)) is not None:
                outcome = self._apply_filters(outcome)
                write(outcome)
                num_rejected += isinstance(outcome, Rejection)
                progress.update(rejected=num_rejected)

    def _apply_filters(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Rejection):
            return outcome
        record = outcome
        for filter_ in self.filters:
            evidence = filter_.check(record)
            if evidence is not None:
                return Rejection(record=record, rule=filter_.name, evidence=evidence)
            record = dataclasses.replace(record, filters=(*record.filters, filter_.name))
        return record


async def _run_step(step: Step) -> Outcome | None:
    return await step()


async def _end_round() -> None:
    return None
