"""How the records of a run are evolved: which method, which language, in which words."""

import dataclasses

from wizardcoder_jax.core.seeded_random import random_bits
from wizardcoder_jax.evol_instruct.code_tasks import GENERATE, TASKS
from wizardcoder_jax.evol_instruct.elimination_rules import CandidateRecord
from wizardcoder_jax.evol_instruct.methods import UNIFORM, Method, draw_method
from wizardcoder_jax.evol_instruct.records import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolutionRequest:
    """One evolution as it is asked for.

    Attributes:
        parent: the record to evolve; its task is kept.
        method: that was drawn.
        language: programming language that the evolution asks for; None where it is not said.
    """

    parent: Record
    method: Method
    language: str | None

    @property
    def prompt(self) -> str:
        """What the teacher is asked, to evolve the instruction."""
        return TASKS[self.parent.task].evolution_prompt(self.method, self.parent.instruction, self.language)

    def answer_prompt(self, instruction: str) -> str:
        """What the teacher is asked, to answer the evolved instruction."""
        return TASKS[self.parent.task].answer_prompt(instruction)

    def candidate(self, instruction: str, finish_reason: str | None) -> CandidateRecord:
        """The evolved instruction, as the rules see it."""
        return CandidateRecord(
            parent_instruction=self.parent.instruction,
            instruction=instruction,
            finish_reason=finish_reason,
            task=self.parent.task,
            language=self.language,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolutionSampler:
    """What is drawn for an evolution, as a function of run seed, record and round alone.

    Attributes:
        run_seed: of every draw.
        method_weights: how often methods 1 to 5 are drawn, relative to one another.
        breadth_rate: share of evolutions that ask for a new instruction of the same domain instead.
        languages: one is drawn for each seed that asks to generate code, for all its rounds; none leaves the seed's own.
    """

    run_seed: int
    method_weights: tuple[float, ...] = UNIFORM
    breadth_rate: float = 0.0
    languages: tuple[str, ...] = ()

    def draft(self, parent: Record, round_: int) -> EvolutionRequest:
        """The evolution of `parent` in a round."""
        method = draw_method(self.run_seed, parent.id, round_, weights=self.method_weights, breadth_rate=self.breadth_rate)
        return EvolutionRequest(parent=parent, method=method, language=self._language(parent))

    def _language(self, parent: Record) -> str | None:
        if not self.languages or parent.task != GENERATE:
            return parent.language
        return self.languages[random_bits(self.run_seed, parent.seed_id, "language") % len(self.languages)]
