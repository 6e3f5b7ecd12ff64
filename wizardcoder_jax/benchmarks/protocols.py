"""Protocols: how a problem is put to the model, together with how its answer is cleaned. A score means nothing without one."""

import dataclasses
from collections.abc import Callable

from wizardcoder_jax import prompts
from wizardcoder_jax.benchmarks import cleaners
from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """A prompt variant with its cleaner."""

    name: str
    write_prompt: Callable[[str], str] | None  # from a problem's prompt; None where answers are never asked for
    clean: Callable[[str], str]  # from a raw answer to the completion
    stop_strings: tuple[str, ...] = ()  # decoding may end at the first of these
    needs_chat_template: bool = False  # the text is a user message, to be put in the model's own chat template

    def prompt(self, problem: Problem) -> str:
        """The text that the model is fed, or the user message where `needs_chat_template`.

        Raises:
            InputError: this protocol only reads samples that exist already.
        """
        if self.write_prompt is None:
            raise InputError(f"protocol {self.name!r} has no prompt to sample with; choose another --protocol")
        return self.write_prompt(problem.prompt)


def _as_it_stands(problem_prompt: str) -> str:
    return problem_prompt


_ALL = (
    EvaluationProtocol(
        name="wizardcoder-humaneval-v1",
        write_prompt=prompts.wizardcoder_humaneval_v1,
        clean=cleaners.wizardcoder_humaneval,
    ),
    EvaluationProtocol(
        name="wizardcoder-humaneval-v2",
        write_prompt=prompts.wizardcoder_humaneval_v2,
        clean=cleaners.wizardcoder_humaneval,
    ),
    EvaluationProtocol(
        name="completion",
        write_prompt=_as_it_stands,
        clean=cleaners.completion,
        stop_strings=cleaners.COMPLETION_STOPS,
    ),
    EvaluationProtocol(
        name="chat",
        write_prompt=prompts.chat_instruction,
        clean=cleaners.chat,
        needs_chat_template=True,
    ),
    EvaluationProtocol(name="stored", write_prompt=None, clean=cleaners.stored),
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
