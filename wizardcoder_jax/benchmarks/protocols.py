"""Evaluation protocols: each pairs a prompt with the cleaning of the answer. A score has no meaning without its protocol."""

import dataclasses
from collections.abc import Callable

from wizardcoder_jax.benchmarks import answer_cleaning, prompts
from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """A prompt variant and its cleaner."""

    name: str
    write_prompt: Callable[[Problem], str] | None  # None if the protocol only evaluates existing samples
    cleaner: Callable[[str, Problem], str]  # from a raw answer to the completion
    ends_at_stop_strings: bool = False  # decoding may end at the first of the problem's stop strings
    stop_strings: tuple[str, ...] = ()  # further strings at which decoding may end
    needs_chat_template: bool = False  # the prompt is a user message, to be put in the model's own chat template
    answer_prefix: str = ""  # the forced beginning of the answer, after the chat template
    prefers_completion: bool = False  # of a sample with both, `completion` is used instead of `raw`
    sanitizes: bool = False  # the cleaner also applies to a self-contained `solution`

    def prompt(self, problem: Problem) -> str:
        """Return the model's input, or the user message if `needs_chat_template`.

        Raises:
            InputError: the protocol only evaluates existing samples, or does not fit the problem.
        """
        if self.write_prompt is None:
            raise InputError(f"protocol {self.name!r} has no prompt to sample with; choose another --protocol")
        return self.write_prompt(problem)

    def stops(self, problem: Problem) -> tuple[str, ...]:
        """Return the strings at which decoding of an answer to the problem may end."""
        return (*(problem.stop_strings if self.ends_at_stop_strings else ()), *self.stop_strings)

    def clean_answer(self, sample: Sample, problem: Problem) -> str:
        """Return the code of a sample's answer, the only text of a sample that is ever run, written out or displayed as such.

        A self-contained `solution` comes first, then `raw`, then `completion`.
        """
        if sample.solution is not None:
            return self.cleaner(sample.solution, problem) if self.sanitizes else sample.solution
        texts = (sample.completion, sample.raw) if self.prefers_completion else (sample.raw, sample.completion)
        text = next((text for text in texts if text is not None), None)
        if text is None:
            raise ValueError(f"sample {sample.sample_index} of {sample.task_id} has neither raw nor completion")
        return self.cleaner(text, problem)


def _problem_prompt(problem: Problem) -> str:
    return problem.prompt


def _humaneval_v1(problem: Problem) -> str:
    return prompts.wizardcoder_humaneval_v1(problem.prompt)


def _humaneval_v2(problem: Problem) -> str:
    return prompts.wizardcoder_humaneval_v2(problem.prompt)


def _mbpp(problem: Problem) -> str:
    return prompts.wizardcoder_mbpp(*_question("wizardcoder-mbpp", problem))


def _mbppplus(problem: Problem) -> str:
    question, examples = _question("wizardcoder-mbppplus", problem)
    return prompts.wizardcoder_mbppplus(question, examples[0])


def _question(protocol: str, problem: Problem) -> tuple[str, tuple[str, ...]]:
    if problem.question is None or not problem.examples:
        raise InputError(f"protocol {protocol!r} is for the MBPP benchmarks; {problem.task_id} has no question with asserts")
    return problem.question, problem.examples


def _chat(problem: Problem) -> str:
    return prompts.chat_message(problem.prompt)


_ALL = (
    EvaluationProtocol(
        name="wizardcoder-humaneval-v1", write_prompt=_humaneval_v1, cleaner=answer_cleaning.clean_wizardcoder_humaneval
    ),
    EvaluationProtocol(
        name="wizardcoder-humaneval-v2", write_prompt=_humaneval_v2, cleaner=answer_cleaning.clean_wizardcoder_humaneval
    ),
    EvaluationProtocol(name="wizardcoder-mbpp", write_prompt=_mbpp, cleaner=answer_cleaning.clean_wizardcoder_mbpp),
    EvaluationProtocol(name="wizardcoder-mbppplus", write_prompt=_mbppplus, cleaner=answer_cleaning.clean_wizardcoder_mbppplus),
    EvaluationProtocol(
        name="completion", write_prompt=_problem_prompt, cleaner=answer_cleaning.clean_completion, ends_at_stop_strings=True
    ),
    EvaluationProtocol(name="chat", write_prompt=_chat, cleaner=answer_cleaning.clean_chat, needs_chat_template=True),
    EvaluationProtocol(
        name="evalplus",
        write_prompt=_chat,
        cleaner=answer_cleaning.clean_evalplus,
        stop_strings=("\n```\n", "\nif __name__", "\ndef main(", "\nprint("),
        needs_chat_template=True,
        answer_prefix=prompts.EVALPLUS_ANSWER_PREFIX,
        sanitizes=True,
    ),
    EvaluationProtocol(name="stored", write_prompt=None, cleaner=answer_cleaning.keep_unchanged, prefers_completion=True),
)

PROTOCOLS: dict[str, EvaluationProtocol] = {protocol.name: protocol for protocol in _ALL}


def get_protocol(name: str) -> EvaluationProtocol:
    """Return the protocol of that name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in PROTOCOLS:
        raise InputError(f"no protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
