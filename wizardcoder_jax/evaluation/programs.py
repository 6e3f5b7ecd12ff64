"""From a benchmark's problems to prompts, and from answers to programs that run in the sandbox; without jax."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from wizardcoder_jax.benchmarks.evalplus_check import CallTimeout
from wizardcoder_jax.benchmarks.problem import Benchmark, Problem
from wizardcoder_jax.benchmarks.program_assembly import Assembled, assemble, reference
from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.inference import fim
from wizardcoder_jax.sandbox.program import EXCEPTION, TIMEOUT, Program, Verdict
from wizardcoder_jax.sandbox.runner import Sandbox


class PromptEncoder(fim.FimEncoder, Protocol):
    """What is asked of a tokenizer."""

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
    problems: dict[str, Problem] = dataclasses.field(default_factory=dict)  # by task id; empty for bare prompts
    suffixes: dict[str, str] = dataclasses.field(default_factory=dict)  # of texts that are to be gone on with up to these

    @staticmethod
    def of(benchmark: Benchmark, protocol: EvaluationProtocol) -> "Questions":
        """A benchmark's problems, put as the protocol puts them."""
        texts = {problem.task_id: protocol.prompt(problem) for problem in benchmark.problems}
        problems = {problem.task_id: problem for problem in benchmark.problems}
        return Questions(version=benchmark.version, texts=texts, protocol=protocol, problems=problems)

    def clean(self, task_id: str, raw: str) -> str:
        """The completion that evaluation runs."""
        return raw if self.protocol is None else self.protocol.clean(raw, self.problems[task_id])

    def prompt_ids(self, tokenizer: PromptEncoder, max_length: int) -> dict[str, tuple[int, ...]]:
        """The token ids of each prompt, by task id.

        Raises:
            InputError: a prompt leaves no room for an answer within `max_length` tokens, there is no chat template, or there
                are no tokens for filling in.
        """
        in_chat = self.protocol is not None and self.protocol.needs_chat_template
        found = {}
        for task_id, text in self.texts.items():
            prompt = tokenizer.chat_prompt(text) if in_chat else text
            ids = tuple(tokenizer.encode(prompt + ("" if self.protocol is None else self.protocol.answer_prefix)))
            if task_id in self.suffixes:
                ids = fim.infilling_prompt(tokenizer, ids, self.suffixes[task_id])
            if len(ids) >= max_length:
                raise InputError(f"the prompt of {task_id} has {len(ids)} tokens, max_length is {max_length}; raise it")
            found[task_id] = ids
        return found

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end an answer under the protocol: those that all problems share; in a benchmark they do not differ."""
        own = [] if self.protocol is None else [self.protocol.stops(problem) for problem in self.problems.values()]
        return tuple(stop for stop in own[0] if all(stop in stops for stops in own)) if own else ()

    def stopped(self, tokenizer: PromptEncoder) -> Callable[[list[int]], bool] | None:
        """Whether an answer so far holds a stop string; None where there is none."""
        stops = self.stops
        return (lambda tokens: any(stop in tokenizer.decode(tokens) for stop in stops)) if stops else None


def programs_of(
    benchmark: Benchmark,
    chosen: Mapping[str, Sequence[Sample]],
    protocol: EvaluationProtocol,
    python: str | None = None,
) -> dict[tuple[str, int], Program]:
    """The program of each sample, by (task id, sample index), in problem order.

    Args:
        benchmark: the problems.
        chosen: the samples of each problem that is scored.
        protocol: how answers are cleaned.
        python: another interpreter to run Python programs with.
    """
    programs: dict[tuple[str, int], Program] = {}
    for problem in benchmark.problems:
        for sample in chosen.get(problem.task_id, ()):
            assembled = assemble(problem, sample, protocol)
            programs[problem.task_id, sample.sample_index] = as_program(assembled, python)
    return programs


def reference_programs(benchmark: Benchmark, python: str | None = None) -> dict[str, Program]:
    """The program of each problem's own solution, by task id; problems that have none are left out."""
    found = {problem.task_id: reference(problem) for problem in benchmark.problems}
    return {task_id: as_program(own, python) for task_id, own in found.items() if own is not None}


def as_program(assembled: Assembled, python: str | None) -> Program:
    """What the sandbox runs."""
    return Program(
        candidate=assembled.candidate,
        test=assembled.test,
        entry_point=assembled.entry_point,
        helpers=assembled.helpers,
        language=assembled.language,
        python=python if assembled.language == "python" else None,
    )


def verdicts_of(
    sandbox: Sandbox, programs: Mapping[str, Program], timeout_s: float, num_workers: int
) -> Iterator[tuple[str, Verdict]]:
    """Runs programs as `Sandbox.run_all` does; yields (key, verdict) as they end.

    The plus tests' own limit on single calls is a timeout too, in wall-clock time.
    """
    keys = list(programs)
    for i, verdict in sandbox.run_all(list(programs.values()), timeout_s, num_workers, doubted=(_CALL_TIMEOUT,)):
        yield keys[i], dataclasses.replace(verdict, reason=TIMEOUT) if verdict.reason == _CALL_TIMEOUT else verdict


_CALL_TIMEOUT = f"{EXCEPTION}:{CallTimeout.__name__}"
