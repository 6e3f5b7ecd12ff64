"""Elimination rules: named checks that reject failed evolutions.

Source: WizardLM, arXiv 2304.12244, section 3.2 "Elimination Evolving" (no information gain, "sorry" in under 80 words, only
punctuation and stop words, words copied from the prompt) and its appendix (the equality prompt, including its spelling). The
other rules are ours: empty, not_utf8, truncated, refused, identical_to_parent, announced (the instruction starts with an
announcement such as "Here is ..."), answered (the instruction includes its answer), lost_code and no_code (the instruction or
the answer lacks the code that the task requires) and wrong_language.
"""

import dataclasses
import re
from collections.abc import Callable

from wizardcoder_jax.evol_instruct import teacher_artifacts
from wizardcoder_jax.evol_instruct.code_tasks import GENERATE, TASKS
from wizardcoder_jax.evol_instruct.language_detection import fenced_blocks, has_code
from wizardcoder_jax.evol_instruct.languages import parse_language_name

NO_INFORMATION_GAIN = "no_information_gain"
CONTAMINATED = "contaminated"
MALICIOUS_REQUEST = "malicious_request"  # records rejected by this rule go to malicious.jsonl

EQUALITY_PROMPT = (
    "Here are two Instructions to ChatGPT AI, do you think they are equal to each other, "
    "which meet the following requirements:\n"
    "1. They have same constraints and requirments.\n"
    "2. They have same depth and breadth of the inquiry.\n"
    "The First Prompt: {first}\n"
    "The Second Prompt: {second}\n"
    "Your Judgement (Just answer: Equal or Not Equal. No need to explain the reason.):"
)

SORRY_MAX_WORDS = 80  # WizardLM: "relatively short in length (i.e., less than 80 words)"

# fmt: off
STOP_WORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "for", "from", "had", "has", "have", "he", "her",
    "his", "i", "in", "is", "it", "its", "me", "my", "of", "on", "or", "our", "she", "so", "that", "the", "their",
    "them", "then", "there", "these", "they", "this", "to", "us", "was", "we", "were", "which", "who", "will", "with",
    "you", "your",
))
# fmt: on


@dataclasses.dataclass(frozen=True, kw_only=True)
class CandidateRecord:
    """A record to be checked. It has only an instruction at first, and also a response later."""

    parent_instruction: str
    instruction: str
    response: str | None = None  # None until the teacher has answered
    finish_reason: str | None = None  # why the latest teacher call ended, e.g. "stop" or "length"
    task: str = GENERATE
    language: str | None = None  # the requested programming language; None if it is not specified

    @property
    def latest_text(self) -> str:
        """The text of the latest teacher call: the response, or the instruction if there is no response yet."""
        return self.instruction if self.response is None else self.response


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """A named check that returns evidence against a candidate record, or None if the candidate passes."""

    name: str
    check: Callable[[CandidateRecord], str | None]


def excerpt(text: str, length: int = 80) -> str:
    """Return the first `length` characters of `text` on one line, with "..." at the end if it was cut."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


def is_equal_verdict(judgement: str) -> bool:
    """Return whether the teacher judged two instructions as equal; an unclear verdict counts as not equal."""
    words = " ".join(re.findall(r"[a-z]+", judgement.lower()))
    return re.search(r"\bequal\b", words) is not None and "not equal" not in words


def _empty(candidate: CandidateRecord) -> str | None:
    return None if candidate.latest_text.strip() else "the teacher returned no text"


def _not_utf8(candidate: CandidateRecord) -> str | None:
    try:
        candidate.latest_text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"lone surrogate at character {error.start}"
    return None


def _truncated(candidate: CandidateRecord) -> str | None:
    return "finish_reason length" if candidate.finish_reason == "length" else None


def _identical_to_parent(candidate: CandidateRecord) -> str | None:
    is_same = candidate.instruction.casefold().split() == candidate.parent_instruction.casefold().split()
    return excerpt(candidate.instruction) if is_same else None


def _leaked_template(candidate: CandidateRecord) -> str | None:
    return teacher_artifacts.find_leaked_words(candidate.instruction, candidate.parent_instruction)


def _announced(candidate: CandidateRecord) -> str | None:
    found = teacher_artifacts.find_announcement(candidate.instruction)
    return excerpt(found) if found else None


def _answered(candidate: CandidateRecord) -> str | None:
    found = teacher_artifacts.find_own_answer(candidate.instruction, candidate.parent_instruction)
    return excerpt(found) if found else None


def _refused(candidate: CandidateRecord) -> str | None:
    is_short = len(candidate.latest_text.split()) < SORRY_MAX_WORDS
    return teacher_artifacts.find_refusal(candidate.latest_text) if is_short else None


def _lost_code(candidate: CandidateRecord) -> str | None:
    is_lost = (
        TASKS[candidate.task].needs_code and has_code(candidate.parent_instruction) and not has_code(candidate.instruction)
    )
    return f"no code in a question to {candidate.task} it" if is_lost else None


def _no_code(candidate: CandidateRecord) -> str | None:
    is_missing = TASKS[candidate.task].answered_with_code and not has_code(candidate.response or "")
    return excerpt(candidate.response or "") if is_missing else None


def _wrong_language(candidate: CandidateRecord) -> str | None:
    """Reject an answer if all labels of its code blocks name other languages. Syntax is too weak as evidence."""
    task = TASKS[candidate.task]
    if candidate.language is None or not (candidate.task == GENERATE or task.answered_with_code):
        return None
    named = {parse_language_name(name) for name, _ in fenced_blocks(candidate.response or "")} - {None}
    if not named or candidate.language in named:
        return None
    return f"asked for {candidate.language}, answered in {', '.join(sorted(map(str, named)))}"


def _sorry(candidate: CandidateRecord) -> str | None:
    is_short = len(candidate.latest_text.split()) < SORRY_MAX_WORDS
    return excerpt(candidate.latest_text) if is_short and "sorry" in candidate.latest_text.lower() else None


def _only_punctuation_or_stop_words(candidate: CandidateRecord) -> str | None:
    words = re.findall(r"\w+", candidate.latest_text.lower())
    return excerpt(candidate.latest_text) if STOP_WORDS.issuperset(words) else None


ANY_TEXT = (
    Rule(name="empty", check=_empty),
    Rule(name="not_utf8", check=_not_utf8),
    Rule(name="truncated", check=_truncated),
)
INSTRUCTION_RULES: tuple[Rule, ...] = (
    *ANY_TEXT,
    Rule(name="only_punctuation_or_stop_words", check=_only_punctuation_or_stop_words),
    Rule(name="refused", check=_refused),
    Rule(name="identical_to_parent", check=_identical_to_parent),
    Rule(name="leaked_template", check=_leaked_template),
    Rule(name="announced", check=_announced),
    Rule(name="answered", check=_answered),
    Rule(name="lost_code", check=_lost_code),
)
RESPONSE_RULES: tuple[Rule, ...] = (
    *ANY_TEXT,
    Rule(name="sorry", check=_sorry),
    Rule(name="only_punctuation_or_stop_words", check=_only_punctuation_or_stop_words),
    Rule(name="refused", check=_refused),
    Rule(name="no_code", check=_no_code),
    Rule(name="wrong_language", check=_wrong_language),
)


def first_failure(rules: tuple[Rule, ...], candidate: CandidateRecord) -> tuple[str, str] | None:
    """Return (rule name, evidence) of the first rule that the candidate fails, or None if it passes all."""
    for rule in rules:
        evidence = rule.check(candidate)
        if evidence is not None:
            return rule.name, evidence
    return None
