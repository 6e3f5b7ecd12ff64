"""Protocols: how a problem is put to the model, together with how its answer is cleaned. A score means nothing without one."""

import dataclasses
from collections.abc import Callable

from wizardcoder_jax.benchmarks import answer_cleaning
from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.core import prompts
from wizardcoder_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """A prompt variant with its cleaner."""

    name: str
    write_prompt: Callable[[Problem], str] | None  # None where answers are never asked for
    clean: Callable[[str, Problem], str]  # from a raw answer to the completion
    ends_at_stop_strings: bool = False  # decoding may end at the first of the problem's stop strings
    stop_strings: tuple[str, ...] = ()  # where else decoding may end
    needs_chat_template: bool = False  # the text is a user message, to be put in the model's own chat template
    answer_prefix: str = ""  # how the answer is made to begin, after the template

    def prompt(self, problem: Problem) -> str:
        """The text that the model is fed, or the user message where `needs_chat_template`.

        Raises:
            InputError: this protocol only reads samples that exist already, or does not fit the problem.
        """
        if self.write_prompt is None:
            raise InputError(f"protocol {self.name!r} has no prompt to sample with; choose another --protocol")
        return self.write_prompt(problem)

    def stops(self, problem: Problem) -> tuple[str, ...]:
        """The strings at which decoding of an answer to the problem may end."""
        return (*(problem.stop_strings if self.ends_at_stop_strings else ()), *self.stop_strings)


def _as_it_stands(problem: Problem) -> str:
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
    return prompts.chat_instruction(problem.prompt)


_ALL = (
    EvaluationProtocol(
        name="wizardcoder-humaneval-v1", write_prompt=_humaneval_v1, clean=answer_cleaning.wizardcoder_humaneval
    ),
    EvaluationProtocol(
        name="wizardcoder-humaneval-v2", write_prompt=_humaneval_v2, clean=answer_cleaning.wizardcoder_humaneval
    ),
    EvaluationProtocol(name="wizardcoder-mbpp", write_prompt=_mbpp, clean=answer_cleaning.wizardcoder_mbpp),
    EvaluationProtocol(name="wizardcoder-mbppplus", write_prompt=_mbppplus, clean=answer_cleaning.wizardcoder_mbppplus),
    EvaluationProtocol(
        name="completion", write_prompt=_as_it_stands, clean=answer_cleaning.completion, ends_at_stop_strings=True
    ),
    EvaluationProtocol(name="chat", write_prompt=_chat, clean=answer_cleaning.chat, needs_chat_template=True),
    EvaluationProtocol(
        name="evalplus",
        write_prompt=_chat,
        clean=answer_cleaning.evalplus,
        stop_strings=("\n```\n", "\nif __name__", "\ndef main(", "\nprint("),
        needs_chat_template=True,
        answer_prefix=prompts.EVALPLUS_ANSWER_PREFIX,
    ),
    EvaluationProtocol(name="stored", write_prompt=None, clean=answer_cleaning.stored),
)

PROTOCOLS: dict[str, EvaluationProtocol] = {protocol.name: protocol for protocol in _ALL}


def get_protocol(name: str) -> EvaluationProtocol:
    """The protocol with this id.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"no protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
