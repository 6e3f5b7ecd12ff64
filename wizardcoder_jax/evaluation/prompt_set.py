"""The prompts given to a model, with the stop strings and the cleaning of the answers; does not import jax."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from wizardcoder_jax.benchmarks.problem import Benchmark, Problem
from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.inference import fim


class PromptEncoder(fim.FimEncoder, Protocol):
    """The tokenizer methods that a prompt set uses."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the token ids."""
        ...

    def chat_prompt(self, message: str) -> str:
        """Return the prompt for a user message, in the model's chat template."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptSet:
    """The prompts of a benchmark under a protocol, or those of a prompts file."""

    version: str  # version of the benchmark or the prompts file
    texts: dict[str, str]  # task id -> prompt, or user message if the protocol needs a chat template
    protocol: EvaluationProtocol | None  # None for a prompts file, because the answers to it are not cleaned
    problems: dict[str, Problem] = dataclasses.field(default_factory=dict)  # by task id; empty for a prompts file
    suffixes: dict[str, str] = dataclasses.field(default_factory=dict)  # task id -> text after the gap to be filled in

    @staticmethod
    def of_benchmark(benchmark: Benchmark, protocol: EvaluationProtocol) -> "PromptSet":
        """Return the prompts of a benchmark's problems under a protocol."""
        texts = {problem.task_id: protocol.prompt(problem) for problem in benchmark.problems}
        problems = {problem.task_id: problem for problem in benchmark.problems}
        return PromptSet(version=benchmark.version, texts=texts, protocol=protocol, problems=problems)

    def clean_answer(self, sample: Sample) -> str:
        """Return the cleaned answer, which evaluation runs; for a prompts file, return the raw answer."""
        if self.protocol is None:
            assert sample.raw is not None
            return sample.raw
        return self.protocol.clean_answer(sample, self.problems[sample.task_id])

    def prompt_ids(self, tokenizer: PromptEncoder, max_length: int) -> dict[str, tuple[int, ...]]:
        """Return the token ids of each prompt, by task id.

        Raises:
            InputError: a prompt fills all `max_length` tokens, or the tokenizer lacks the chat template or the
                fill-in-the-middle tokens that the prompts need.
        """
        in_chat = self.protocol is not None and self.protocol.needs_chat_template
        found = {}
        for task_id, text in self.texts.items():
            prompt = tokenizer.chat_prompt(text) if in_chat else text
            ids = tuple(tokenizer.encode(prompt + ("" if self.protocol is None else self.protocol.answer_prefix)))
            if task_id in self.suffixes:
                ids = fim.fim_prompt(tokenizer, ids, self.suffixes[task_id])
            if len(ids) >= max_length:
                raise InputError(f"the prompt of {task_id} has {len(ids)} tokens; raise max_length, which is {max_length}")
            found[task_id] = ids
        return found

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings that all problems share, at which any answer may end."""
        per_problem = [] if self.protocol is None else [self.protocol.stops(problem) for problem in self.problems.values()]
        if not per_problem:
            return ()
        return tuple(stop for stop in per_problem[0] if all(stop in stops for stops in per_problem))

    def stop_condition(self, tokenizer: PromptEncoder) -> Callable[[list[int]], bool] | None:
        """Return a function that checks generated tokens for a stop string; None if there are no stop strings."""
        stops = self.stops
        return (lambda tokens: any(stop in tokenizer.decode(tokens) for stop in stops)) if stops else None
