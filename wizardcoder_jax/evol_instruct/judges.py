"""Judges: checks that may ask the teacher or run programs, so they follow the cheaper elimination rules.

Source: WizardLM, arXiv 2304.12244, section 3.2 "Elimination Evolving": the teacher decides whether an evolution adds
information.
"""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Protocol

from wizardcoder_jax.evol_instruct.elimination_rules import (
    EQUALITY_PROMPT,
    NO_INFORMATION_GAIN,
    CandidateRecord,
    excerpt,
    is_equal_verdict,
)
from wizardcoder_jax.llm_client.completion import Completion


class AskTeacher(Protocol):
    """Function that calls the teacher for one record and adds the cost and the call id to that record."""

    async def __call__(self, prompt: str, purpose: str) -> Completion:
        """Return the teacher's answer to `prompt`; `purpose` distinguishes the calls of one record."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inconclusive:
    """The verdict of a judge that could not check a candidate. The record passes, and its field "filters" gets the reason."""

    reason: str  # a short identifier, e.g. "needs_input"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """A named check that may ask the teacher or run programs.

    Attributes:
        name: value of the field "rule" in records that the judge rejects.
        check: the check, which returns evidence against the candidate, None if the candidate passes, or `Inconclusive`. Its
            verdict must depend only on the candidate and the teacher's answers.
        max_calls: the maximum number of teacher calls for one candidate.
    """

    name: str
    check: Callable[[CandidateRecord, AskTeacher], Awaitable[str | Inconclusive | None]]
    max_calls: int = 1


async def _check_information_gain(candidate: CandidateRecord, ask_teacher: AskTeacher) -> str | None:
    prompt = EQUALITY_PROMPT.format(first=candidate.parent_instruction, second=candidate.instruction)
    judgment = (await ask_teacher(prompt, "judge")).text
    return excerpt(judgment) if is_equal_verdict(judgment) else None


INFORMATION_GAIN = Judge(name=NO_INFORMATION_GAIN, check=_check_information_gain)
