"""The prompts for evolving one record, with a randomly chosen evolution method and programming language."""

import dataclasses

from wizardcoder_jax.core.seeded_random import random_bits
from wizardcoder_jax.evol_instruct.code_tasks import GENERATE, TASKS
from wizardcoder_jax.evol_instruct.elimination_rules import CandidateRecord
from wizardcoder_jax.evol_instruct.methods import UNIFORM, Method, draw_method
from wizardcoder_jax.evol_instruct.records import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolutionRequest:
    """A request to the teacher to evolve one record.

    Attributes:
        parent: the record to evolve; the evolved record has the same task.
        method: the evolution method.
        language: the programming language that the prompt asks for; None if the prompt names no language.
    """

    parent: Record
    method: Method
    language: str | None

    @property
    def prompt(self) -> str:
        """The prompt that asks the teacher to evolve the instruction."""
        return TASKS[self.parent.task].evolution_prompt(self.method, self.parent.instruction, self.language)

    def answer_prompt(self, instruction: str) -> str:
        """Return the prompt that asks the teacher to answer the evolved instruction."""
        return TASKS[self.parent.task].answer_prompt(instruction)

    def candidate(self, instruction: str, finish_reason: str | None) -> CandidateRecord:
        """Return the candidate record with the evolved instruction, to be checked by the elimination rules."""
        return CandidateRecord(
            parent_instruction=self.parent.instruction,
            instruction=instruction,
            finish_reason=finish_reason,
            task=self.parent.task,
            language=self.language,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolutionSampler:
    """Sampler of methods and languages. Its choices depend only on the run seed, the record and the round.

    Attributes:
        run_seed: the random seed of the run.
        method_weights: relative frequencies of methods 1 to 5.
        breadth_rate: share of evolutions that instead ask for a new instruction from the same domain.
        languages: the languages to sample from. Each seed with the task "generate" gets one language for all rounds. If empty,
            every seed keeps its own language.
    """

    run_seed: int
    method_weights: tuple[float, ...] = UNIFORM
    breadth_rate: float = 0.0
    languages: tuple[str, ...] = ()

    def sample(self, parent: Record, round_: int) -> EvolutionRequest:
        """Sample a method and a language, and return the request to evolve `parent` in round `round_`."""
        method = draw_method(self.run_seed, parent.id, round_, weights=self.method_weights, breadth_rate=self.breadth_rate)
        return EvolutionRequest(parent=parent, method=method, language=self._sample_language(parent))

    def _sample_language(self, parent: Record) -> str | None:
        if not self.languages or parent.task != GENERATE:
            return parent.language
        return self.languages[random_bits(self.run_seed, parent.seed_id, "language") % len(self.languages)]
