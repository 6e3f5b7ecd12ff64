"""Evaluation protocols: each pairs a prompt with an answer cleaner. A score has no meaning without its protocol."""

import dataclasses
from collections.abc import Callable

from wizardcoder_jax.benchmarks import answer_cleaning, prompts
from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """A prompt format and the cleaner for the answers to it."""

    name: str
    write_prompt: Callable[[Problem], str] | None  # returns the prompt; None if the protocol cannot be used for sampling
    cleaner: Callable[[str, Problem], str]  # extracts the completion from a raw answer
    ends_at_stop_strings: bool = False  # whether decoding may end at the problem's stop strings
    stop_strings: tuple[str, ...] = ()  # additional strings at which decoding may end
    needs_chat_template: bool = False  # whether the prompt is a user message for the model's chat template
    answer_prefix: str = ""  # text appended to the chat prompt, with which the answer begins
    prefers_completion: bool = False  # whether `completion` is used instead of `raw` if a sample has both
    sanitizes: bool = False  # whether the cleaner also applies to a self-contained `solution`

    def prompt(self, problem: Problem) -> str:
        """Return the model's input, or the user message if `needs_chat_template`.

        Raises:
            InputError: the protocol cannot be used for sampling, or does not fit the problem.
        """
        if self.write_prompt is None:
            raise InputError(f"protocol {self.name!r} has no prompt to sample with; choose another --protocol")
        return self.write_prompt(problem)

    def stops(self, problem: Problem) -> tuple[str, ...]:
        """Return the strings at which decoding of an answer to the problem may end."""
        return (*(problem.stop_strings if self.ends_at_stop_strings else ()), *self.stop_strings)

    def clean_answer(self, sample: Sample, problem: Problem) -> str:
        """Return the cleaned code of a sample, the only form in which a sample's code is run, exported or displayed.

        The code is taken from `solution` if the sample has one, else from `raw` or `completion` (see `prefers_completion`).
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
        raise InputError(
            f"protocol {protocol!r} is for the MBPP benchmarks; {problem.task_id} has no question with asserts; choose another"
        )
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
    """Return the protocol named `name`.

    Raises:
        InputError: the name is unknown.
    """
    if name not in PROTOCOLS:
        raise InputError(f"unknown protocol {name!r}; supported: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
