"""From a benchmark's problems to prompts, and from answers to programs that run in the sandbox; without jax."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from wizardcoder_jax.benchmarks.problem import Benchmark
from wizardcoder_jax.benchmarks.program import assemble
from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
from wizardcoder_jax.benchmarks.samples import Sample
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.sandbox.program import Program


class Encoder(Protocol):
    """What is asked of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, nothing added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`."""
        ...

    def chat_prompt(self, message: str) -> str:
        """The prompt that asks `message`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked, and how an answer becomes a completion."""

    version: str  # of the benchmark or the prompts file
    texts: dict[str, str]  # task id -> prompt text, or user message
    protocol: EvaluationProtocol | None  # None for bare prompts, whose answers stay as they are

    @staticmethod
    def of(benchmark: Benchmark, protocol: EvaluationProtocol) -> "Questions":
        """A benchmark's problems, put as the protocol puts them."""
        texts = {problem.task_id: protocol.prompt(problem) for problem in benchmark.problems}
        return Questions(version=benchmark.version, texts=texts, protocol=protocol)

    def clean(self, raw: str) -> str:
        """The completion that evaluation runs."""
        return raw if self.protocol is None else self.protocol.clean(raw)

    def prompt_ids(self, tokenizer: Encoder, max_length: int) -> dict[str, tuple[int, ...]]:
        """The token ids of each prompt, by task id.

        Raises:
            InputError: a prompt leaves no room for an answer within `max_length` tokens, or there is no chat template.
        """
        in_chat = self.protocol is not None and self.protocol.needs_chat_template
        found = {}
        for task_id, text in self.texts.items():
            ids = tuple(tokenizer.encode(tokenizer.chat_prompt(text) if in_chat else text))
            if len(ids) >= max_length:
                raise InputError(f"the prompt of {task_id} has {len(ids)} tokens, max_length is {max_length}; raise it")
            found[task_id] = ids
        return found

    def stopped(self, tokenizer: Encoder) -> Callable[[list[int]], bool] | None:
        """Whether an answer so far holds a stop string of the protocol; None where it has none."""
        if self.protocol is None or not (stops := self.protocol.stop_strings):
            return None
        return lambda tokens: any(stop in tokenizer.decode(tokens) for stop in stops)


def programs_of(
    benchmark: Benchmark, chosen: Mapping[str, Sequence[Sample]], protocol: EvaluationProtocol
) -> dict[tuple[str, int], Program]:
    """The program of each sample, by (task id, sample index), in problem order."""
    programs: dict[tuple[str, int], Program] = {}
    for problem in benchmark.problems:
        for sample in chosen[problem.task_id]:
            candidate, test = assemble(problem, sample, protocol)
            programs[problem.task_id, sample.sample_index] = Program(candidate=candidate, test=test)
    return programs
