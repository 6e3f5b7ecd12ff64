"""Detection of text that the teacher model adds to an evolved instruction by mistake.

Such text is a leaked phrase of the evolution prompt, an announcement, an answer to the instruction, or a refusal.

Source: WizardLM, arXiv 2304.12244, section 3.2, names "given prompt", "rewritten prompt" and "#Rewritten Prompt#". The
other leaked phrases are from our own prompts. The headings, announcements and refusals are those of gpt-3.5-turbo in the data
of nickrosh/evol-teacher.
"""

import re

from wizardcoder_jax.evol_instruct.code_tasks import TASKS
from wizardcoder_jax.evol_instruct.methods import SUBJECT

TEMPLATE_WORDS = (
    "given prompt",
    "rewritten prompt",
    "created prompt",
    "#given",
    "#rewritten",
    "#created",
    "rewritten test",
    f"given {SUBJECT}",
    *(task.subject for task in TASKS.values()),
    "increase the difficulty",
    "increase misdirection",
    "inspiration from the given",
    "be even more rare",
    "reply with the new question",
)

LONGEST_ANNOUNCEMENT = 300  # maximum number of characters; a longer first line is not just an announcement

_NEW = (
    r"(?:revised|updated|modified|rewritten|evolved|enhanced|improved|increased|harder|"
    r"more (?:difficult|challenging|complex|advanced))"
)
_QUESTION = r"(?:question|problem|prompt|test|task|challenge|version|instruction|difficulty)"
# A line that labels the text as rewritten: "#Revised Test#", "**Modified Question:**", "## Increased Difficulty".
_HEADING = re.compile(
    rf"^[^\w\n]*(?:(?:\w[\w-]* )?{_NEW}(?: [\w-]+){{0,2}}? {_QUESTION}s?|difficulty increased?)(?: {_QUESTION})?[^\w\n]*$|"
    rf"^[^\w\n]*{_NEW} (?:programming )?{_QUESTION}:",
    re.IGNORECASE | re.MULTILINE,
)
_AGREEMENT = re.compile(r"\W*(?:sure|certainly|of course|absolutely|okay|ok|great)\b ?[!,.:][^\n]*", re.IGNORECASE)
_ANNOUNCEMENT = re.compile(  # only applied to a first line if other lines follow it
    rf"\W*(?:(?:here(?:.s| is| are)|below is|this is)\b.*\b(?:{_NEW}|new)\b.*\b{_QUESTION}s?\b.*:|"
    rf"i(?:.ve| have) (?:{_NEW}|made)\b.*)\W*",
    re.IGNORECASE,
)
_OWN_ANSWER = re.compile(
    r"^[^\w\n]*(?:(?:correct|sample|example|possible|proposed|suggested|complete) )?(?:solution|answer)[^\w\n]*$|"
    r"^[^\w\n]*here(?:.s| is) (?:the|an?|one|my) (?:(?:possible|complete|final|working|updated|revised|corrected|fixed) )+"
    r"(?:code|solution|implementation|program|version|function)\b.*:|"
    r"^[^\w\n]*here(?:.s| is) (?:the|a|one|my) solution\b",
    re.IGNORECASE | re.MULTILINE,
)
# A single fenced block without a comment or docstring that could contain the request.
_CODE_ALONE = re.compile(r"```[^\n`]*\n(?:(?!```|\"\"\"|'''|#|//|/\*|--)[\s\S])*```")
_HELP = r"(?:help|assist|provide|do that|fulfil|comply|answer|rewrite|increase|create|generate|perform|complete|modify)"
_REFUSAL = re.compile(
    r"\W*(?:i(?:.m| am) (?:\w+ )?sorry\b|sorry,|unfortunately, i\b|as an ai\b|my apologies\b|i apologi[sz]e\b|"
    rf"i (?:cannot|can.t|can not|won.t) {_HELP}|i(?:.m| am) (?:unable|not able) to {_HELP})",
    re.IGNORECASE,
)


def find_leaked_words(text: str, parent: str) -> str | None:
    """Return a phrase of our prompts or a heading such as "Revised Test" that is in `text` but not in `parent`, or None."""
    lowered, known = text.lower(), parent.lower()
    words = next((words for words in TEMPLATE_WORDS if words in lowered and words not in known), None)
    return words or _search_unless_in_parent(_HEADING, text, parent)


def find_announcement(text: str) -> str | None:
    """Return the first line if it is an announcement ("Sure!", "Here is a harder version:") rather than a request, or None."""
    first, _, rest = text.strip().partition("\n")
    if len(first) > LONGEST_ANNOUNCEMENT:
        return None
    announced = _AGREEMENT.fullmatch(first) or (rest.strip() and _ANNOUNCEMENT.fullmatch(first))
    return first if announced else None


def find_own_answer(text: str, parent: str) -> str | None:
    """Return the part of an instruction that answers it, or None if it has no such part or `parent` has one too.

    This part is the line that introduces the answer, or all of the code if the instruction consists only of code.
    """
    if _CODE_ALONE.fullmatch(text.strip()) and not _CODE_ALONE.fullmatch(parent.strip()):
        return text.strip().partition("\n")[2].strip()
    return _search_unless_in_parent(_OWN_ANSWER, text, parent)


def find_refusal(text: str) -> str | None:
    """Return the refusal at the start of a text, or None if there is none."""
    found = _REFUSAL.match(text)
    return found.group().strip() if found else None


def _search_unless_in_parent(pattern: re.Pattern[str], text: str, parent: str) -> str | None:
    found = pattern.search(text)
    return found.group().strip() if found and not pattern.search(parent) else None
