import asyncio
import json

import pytest

from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
from wizardcoder_jax.evol_instruct.contamination.contamination_judge import contamination_judge, parse_choice
from wizardcoder_jax.evol_instruct.elimination_rules import CandidateRecord
from wizardcoder_jax.llm_client.completion import Completion

pytestmark = pytest.mark.quick

PROBLEMS = [
    f"Return the {kind} heron that wades upstream past both lanterns before the {thing} has rung twice at dawn."
    for kind, thing in (
        ("seventh", "bell"),
        ("oldest", "gong"),
        ("palest", "chime"),
        ("last", "horn"),
        ("first", "drum"),
        ("odd", "fife"),
    )
]
REWORDED = "Find the oldest heron that wades upstream past both lanterns before the gong was heard to have rung twice at dawn."


@pytest.fixture
def detector(tmp_path):
    lines = [json.dumps({"task_id": f"B/{i}", "prompt": prompt}) for i, prompt in enumerate(PROBLEMS)]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    return ContaminationDetector(str(tmp_path))


def judged(detector, text, reply):
    asked = []

    async def ask_teacher(prompt, purpose):
        asked.append((prompt, purpose))
        return Completion(text=reply, finish_reason="stop", prompt_tokens=1, completion_tokens=1, model="m")

    candidate = CandidateRecord(parent_instruction="", instruction=text, response="It does.")
    return asyncio.run(contamination_judge(detector).check(candidate, ask_teacher)), asked


def test_a_reworded_problem_is_dropped_if_the_teacher_says_so(detector):
    assert detector.find_evidence(REWORDED) is None
    evidence, asked = judged(detector, REWORDED, "1")
    assert evidence.startswith("judge 0.") and "B/1 (b.jsonl)" in evidence
    prompt, purpose = asked[0]
    assert purpose == "contamination" and REWORDED in prompt and "It does." in prompt
    assert prompt.index(PROBLEMS[1]) < min(
        prompt.index(other) for other in PROBLEMS if other in prompt and other != PROBLEMS[1]
    )
    assert sum(other in prompt for other in PROBLEMS) == 5


@pytest.mark.parametrize("reply", ["None", "", "none of them", "0", "6", "They share 2 words"])
def test_every_other_reply_keeps_the_record(detector, reply):
    evidence, asked = judged(detector, REWORDED, reply)
    assert evidence is None and len(asked) == 1


def test_the_teacher_is_not_asked_about_a_record_unlike_every_problem(detector):
    assert judged(detector, "Sort a list of numbers.", "1") == (None, [])


@pytest.mark.parametrize(
    ("reply", "number"), [("2", 2), (" **Problem 2**", 2), ("2.", 2), ("Problem: 3", 3), ("4", None), ("22", None)]
)
def test_the_choice_is_parsed_from_the_start_of_a_reply(reply, number):
    assert parse_choice(reply, 3) == number
