"""OSS-Instruct: seeds made from code. The teacher model invents a problem inspired by a code snippet, and solves it.

Source: Magicoder, arXiv 2312.02120, section 2; ise-uiuc/magicoder @7e4af16, data/prompt.txt (the prompt), and @6bba7f4,
src/magicoder/generate_data.py (the first sentence of our prompt, which is the system message there) and clean_data.py
(solutions that copy the code of the problem are dropped).
"""

import dataclasses
import re

from wizardcoder_jax.evol_instruct import elimination_rules
from wizardcoder_jax.evol_instruct.code_snippets import Snippet
from wizardcoder_jax.evol_instruct.elimination_rules import CandidateRecord, Rule, excerpt
from wizardcoder_jax.evol_instruct.judges import AskTeacher
from wizardcoder_jax.evol_instruct.language_detection import detect_language, fenced_blocks
from wizardcoder_jax.evol_instruct.records import Record, Rejection, replace_surrogates, seed_id, seed_record

UNPARSABLE = "unparsable_problem"

PROMPT = (
    "You are exceptionally skilled at crafting high-quality programming problems and offering precise solutions.\n\n"
    "Please gain inspiration from the following random code snippet to create a high-quality programming problem. "
    "Present your output in two distinct sections: [Problem Description] and [Solution].\n\n"
    "Code snippet for inspiration:\n"
    "```\n"
    "{code}\n"
    "```\n\n"
    "Guidelines for each section:\n\n"
    "1. [Problem Description]: This should be **completely self-contained**, providing all the contextual information one "
    "needs to understand and solve the problem. Assume common programming knowledge, but ensure that any specific context, "
    "variables, or code snippets pertinent to this problem are explicitly included.\n\n"
    "2. [Solution]: Offer a comprehensive, **correct** solution that accurately addresses the [Problem Description] you "
    "provided."
)

# Section headings, with any Markdown: "[Problem Description]", "## [Solution]:", "**1. [Problem Description]** ...".
_PROBLEM, _SOLUTION = (
    re.compile(
        rf"^[ \t#*_]{{0,20}}(?:\d[.)])?[ \t#*_]{{0,20}}\[{name}\][ \t*_]{{0,20}}:?[ \t*_]{{0,20}}", re.IGNORECASE | re.MULTILINE
    )
    for name in ("Problem Description", "Solution")
)


def parse_problem(reply: str) -> tuple[str, str] | None:
    """Return (problem, solution), or None if the reply does not have exactly one of each, in this order and not empty."""
    problems, solutions = list(_PROBLEM.finditer(reply)), list(_SOLUTION.finditer(reply))
    if len(problems) != 1 or len(solutions) != 1 or solutions[0].start() < problems[0].end():
        return None
    problem, solution = reply[problems[0].end() : solutions[0].start()].strip(), reply[solutions[0].end() :].strip()
    return (problem, solution) if problem and solution else None


async def make_seed(snippet: Snippet, ask_teacher: AskTeacher) -> Record | Rejection:
    """Return a seed made from a snippet, i.e. the problem that the teacher model invents and its solution, or a rejection.

    The caller adds the token usage and cost to the record.
    """
    reply = await ask_teacher(PROMPT.format(code=snippet.code), "problem")
    parsed = parse_problem(reply.text)
    problem, solution = parsed or ("", reply.text)
    raw = CandidateRecord(parent_instruction="", instruction=reply.text, finish_reason=reply.finish_reason)
    failure = elimination_rules.first_failure(elimination_rules.ANY_TEXT, raw)
    if failure is None and parsed is None:
        failure = UNPARSABLE, excerpt(reply.text)
    failure = failure or elimination_rules.first_failure(
        PROBLEM_RULES, dataclasses.replace(raw, instruction=problem, response=solution)
    )
    record = dataclasses.replace(_record(snippet, problem, solution), teacher=replace_surrogates(reply.model))
    if failure is not None:
        return Rejection(record=record, rule=failure[0], evidence=failure[1])
    return dataclasses.replace(
        record, filters=(UNPARSABLE, *(rule.name for rule in (*elimination_rules.ANY_TEXT, *PROBLEM_RULES)))
    )


def _record(snippet: Snippet, problem: str, solution: str) -> Record:
    instruction, output = replace_surrogates(problem), replace_surrogates(solution)
    language = snippet.language if snippet.language == detect_language(output) else None
    # The id depends on the snippet too, because two snippets may inspire the same problem.
    id_ = seed_id(f"{snippet.id}\n{instruction}", output, language=language)
    return seed_record(id_, instruction, output, language=language)


def _copied_solution(candidate: CandidateRecord) -> str | None:
    given = {"".join(code.split()) for _, code in fenced_blocks(candidate.instruction)} - {""}
    copied = [code for _, code in fenced_blocks(candidate.response or "") if "".join(code.split()) in given]
    return excerpt(copied[0]) if copied else None


PROBLEM_RULES: tuple[Rule, ...] = (
    *(rule for rule in elimination_rules.RESPONSE_RULES if rule.name in ("sorry", "only_punctuation_or_stop_words", "refused")),
    Rule(name="copied_solution", check=_copied_solution),
)
