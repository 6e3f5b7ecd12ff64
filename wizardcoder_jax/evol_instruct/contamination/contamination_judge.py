"""The last tier of decontamination: the teacher judges whether a record is a copy of one of the most similar problems.

Source: in WizardCoder, arXiv 2306.08568v2, appendix C, GPT-4 compares each test item with the five nearest training samples. We
search in the other direction, because records arrive one by one: the teacher compares each record with the five problems that
share most n-grams with it. The prompt is ours.
"""

import re
from collections.abc import Sequence

from wizardcoder_jax.evol_instruct.contamination.benchmark_problems import KnownProblem
from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
from wizardcoder_jax.evol_instruct.elimination_rules import CONTAMINATED, CandidateRecord, excerpt
from wizardcoder_jax.evol_instruct.judges import AskTeacher, Judge

NUM_NEAREST = 5
MIN_SIMILARITY = 0.3  # minimum share of a problem's n-grams in the record for the teacher to be asked about the problem
MAX_PROBLEM_CHARS = 1500
MAX_RECORD_CHARS = 6000
PURPOSE = "contamination"

PROMPT = (
    "Below are a training example and some problems of a benchmark. Decide whether the training example is the same "
    "programming problem as one of them, so that a model trained on it would know the answer: the same task under other names "
    "or in other words, or a solution of it. Problems that are merely about the same subject, easier, harder or asking for "
    "something else are different.\n\n"
    "Training example:\n{record}\n\n"
    "{problems}\n\n"
    "Your judgement (just answer the number of the problem that is the same, or None; no need to explain the reason):"
)


def contamination_judge(detector: ContaminationDetector) -> Judge:
    """Return a judge that finds reworded copies, which share too little text with a problem for the other tiers."""

    async def check(candidate: CandidateRecord, ask_teacher: AskTeacher) -> str | None:
        record = f"{candidate.instruction}\n{candidate.response or ''}".strip()
        nearest = [
            (problem, similarity)
            for problem, similarity in detector.nearest(record, NUM_NEAREST)
            if similarity >= MIN_SIMILARITY
        ]
        if not nearest:
            return None
        reply = (await ask_teacher(judge_prompt(record, [problem for problem, _ in nearest]), PURPOSE)).text
        choice = parse_choice(reply, len(nearest))
        if choice is None:
            return None
        problem, similarity = nearest[choice - 1]
        return f"judge {similarity:.2f}, {problem.task_id} ({problem.benchmark}): {excerpt(reply)}"

    return Judge(name=CONTAMINATED, check=check)


def judge_prompt(record: str, problems: Sequence[KnownProblem]) -> str:
    """Return the prompt that asks the teacher whether a record is a copy of one of `problems`."""
    shown = (f"Problem {i}:\n{problem.prompt.strip()[:MAX_PROBLEM_CHARS]}" for i, problem in enumerate(problems, start=1))
    return PROMPT.format(record=record[:MAX_RECORD_CHARS], problems="\n\n".join(shown))


def parse_choice(reply: str, num_problems: int) -> int | None:
    """Return the problem number at the start of a reply ("2", "Problem 2"), or None if it is missing or out of range."""
    found = re.match(r"\W*(?:problem\W*)?(\d+)\b", reply, re.IGNORECASE)
    number = int(found.group(1)) if found else 0
    return number if 1 <= number <= num_problems else None
