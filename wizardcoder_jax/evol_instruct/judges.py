"""Judges: checks that may take time or ask the teacher, after the rules.

Source: WizardLM, arXiv 2304.12244, section 3.2 "Elimination Evolving": the teacher says whether an evolution gains information.
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
    """Asks the teacher on behalf of one record: the answer's cost and call id become the record's."""

    async def __call__(self, prompt: str, purpose: str) -> Completion:
        """The teacher's answer to `prompt`; `purpose` tells the calls of one record apart."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inconclusive:
    """A judge's word that it could not check a candidate; it passes, and its filters say so."""

    reason: str  # a short name, e.g. "needs_input"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """A named check: it comes to evidence against the candidate, to None, or says that it could not check it.

    Attributes:
        name: of the elimination rule.
        check: the verdict must be a function of the candidate and the teacher's answers alone.
        max_calls: of the teacher, for one candidate.
    """

    name: str
    check: Callable[[CandidateRecord, AskTeacher], Awaitable[str | Inconclusive | None]]
    max_calls: int = 1


async def _equal(candidate: CandidateRecord, question: AskTeacher) -> str | None:
    prompt = EQUALITY_PROMPT.format(first=candidate.parent_instruction, second=candidate.instruction)
    judgement = (await question(prompt, "judge")).text
    return excerpt(judgement) if is_equal_verdict(judgement) else None


INFORMATION_GAIN = Judge(name=NO_INFORMATION_GAIN, check=_equal)
