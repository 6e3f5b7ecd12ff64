import asyncio
import json
import re

import pytest

from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.evol_instruct.code_snippets import Snippet, SnippetFile
from wizardcoder_jax.evol_instruct.evolution_prompt import EvolutionSampler
from wizardcoder_jax.evol_instruct.oss_instruct import PROMPT, make_seed, parse_problem
from wizardcoder_jax.evol_instruct.record_evolver import RecordEvolver
from wizardcoder_jax.evol_instruct.records import Record, Rejection
from wizardcoder_jax.evol_instruct.rounds import Rounds
from wizardcoder_jax.evol_instruct.run_folder import RoundFileStore
from wizardcoder_jax.llm_client.completion import Completion
from wizardcoder_jax.llm_client.paid_calls import PaidAnswer

pytestmark = pytest.mark.quick

ROUND_0, ROUND_1 = "rounds/round-00.jsonl", "rounds/round-01.jsonl"

SNIPPET = Snippet(id="snippet-1", code="x = {1: 2}", language="python")
GOOD = "[Problem Description]\nAdd two numbers.\n\n[Solution]\n```python\ndef add(a, b):\n    return a + b\n```"


def seeded(reply, finish_reason="stop", snippet=SNIPPET):
    """Return the outcome of make_seed for a reply of the teacher, and the prompts that were sent."""
    asked = []

    async def ask_teacher(prompt, purpose):
        asked.append((purpose, prompt))
        return Completion(text=reply, finish_reason=finish_reason, prompt_tokens=1, completion_tokens=1, model="t-1")

    return asyncio.run(make_seed(snippet, ask_teacher)), asked


def test_the_prompt_is_magicoders_with_the_snippet():
    _, ((purpose, prompt),) = seeded(GOOD)
    assert purpose == "problem" and "Code snippet for inspiration:\n```\nx = {1: 2}\n```\n\nGuidelines" in prompt
    assert prompt.startswith("You are exceptionally skilled at crafting") and prompt.endswith("you provided.")
    assert len(PROMPT.partition("\n\n")[2]) == 709  # number of characters in magicoder's data/prompt.txt


def test_a_reply_with_both_sections_becomes_a_record_of_round_0():
    record, _ = seeded(GOOD)
    assert isinstance(record, Record)
    assert (record.round, record.parent_id, record.method, record.teacher) == (0, None, None, "t-1")
    assert (record.seed_id, record.task, record.language) == (record.id, "generate", "python")
    assert record.instruction == "Add two numbers." and record.output.startswith("```python\ndef add")
    assert {"unparsable_problem", "truncated", "sorry", "copied_solution"} <= set(record.filters)


def test_the_same_reply_to_two_snippets_makes_two_records():
    other = Snippet(id="snippet-2", code="y = 2", language="go")
    (one, _), (two, _) = seeded(GOOD), seeded(GOOD, snippet=other)
    assert one.id != two.id and seeded(GOOD)[0] == one
    assert two.language is None  # the snippet is Go, the solution is not


@pytest.mark.parametrize(
    ("reply", "parsed"),
    [
        ("[Problem Description]: A\n[Solution]: B", ("A", "B")),
        ("Sure!\n\n## [problem description]\n\nA\nB\n\n## [SOLUTION]\n\nC", ("A\nB", "C")),
        ("**[Problem Description]**\nA\n**[Solution]:** B", ("A", "B")),
        ("1. [Problem Description]:\nA\n\n2. [Solution]:\n* B", ("A", "* B")),
        ("[Problem Description]\nFill in [Solution] below.\n[Solution]\nB", ("Fill in [Solution] below.", "B")),
        ("[Solution]\nB\n[Problem Description]\nA", None),
        ("[Problem Description]\nA", None),
        ("[Problem Description]\n\n[Solution]\nB", None),
        ("[Problem Description]\nA\n[Solution]\n", None),
        ("[Problem Description]\nA\n[Solution]\nB\n[Problem Description]\nC\n[Solution]\nD", None),
        ("Problem: A\nSolution: B", None),
        ("", None),
    ],
)
def test_a_reply_is_parsed_strictly(reply, parsed):
    assert parse_problem(reply) == parsed


@pytest.mark.parametrize(
    ("reply", "finish_reason", "rule"),
    [
        ("", "stop", "empty"),
        (GOOD, "length", "truncated"),
        (f"{GOOD} \ud800", "stop", "not_utf8"),
        ("Here is a problem: add two numbers.", "stop", "unparsable_problem"),
        ("[Problem Description]\nA\n[Solution]\nSorry, no.", "stop", "sorry"),
        ("[Problem Description]\nA\n[Solution]\n...", "stop", "only_punctuation_or_stop_words"),
        ("[Problem Description]\nFix\n```\nx = 1\n```\n[Solution]\n```python\nx  = 1\n```", "stop", "copied_solution"),
    ],
)
def test_an_unusable_reply_is_rejected_by_the_expected_rule(reply, finish_reason, rule):
    rejection, asked = seeded(reply, finish_reason)
    assert isinstance(rejection, Rejection) and (rejection.rule, len(asked)) == (rule, 1)
    assert rejection.evidence and rejection.record.round == 0
    "".join(map(str, rejection.to_json().values())).encode("utf-8")


def test_snippets_pass_through_the_rounds_with_the_usage_of_their_calls(tmp_path):
    """Round 0 has the problems that could be parsed, each with its call, and round 1 evolves them."""
    (tmp_path / "code.jsonl").write_text("".join(json.dumps({"snippet": f"x{i} = {i}"}) + "\n" for i in range(20)))

    async def call_teacher(prompt, *, purpose, record_id, round_):
        (number,) = re.findall(r"^x(\d+) = ", prompt, re.MULTILINE) or [None]
        made = GOOD.replace("two numbers", f"{number} numbers") if number and int(number) % 4 else "No idea."
        text = (
            made
            if purpose == "problem"
            else prompt.split("\n\n")[-1] + " Harder."
            if purpose == "evolve"
            else "```python\nf()\n```"
        )
        completion = Completion(text=text, finish_reason="stop", prompt_tokens=3, completion_tokens=2, model="t-1")
        return PaidAnswer(completion, 0.5, f"{purpose}/{record_id}/{round_}")

    snippets = SnippetFile(str(tmp_path / "code.jsonl"), 0)
    evolver = RecordEvolver(call_teacher=call_teacher, sampler=EvolutionSampler(run_seed=0), judges=(), make_seed=make_seed)
    with RoundFileStore(tmp_path / "out") as files:
        asyncio.run(Rounds(evolver=evolver, store=files, concurrency=8).run(snippets, 20, 1))
    read = {
        name: [entry for _, entry in read_records(tmp_path / "out" / name)] for name in ("rejected.jsonl", ROUND_0, ROUND_1)
    }
    assert [entry["rule"] for entry in read["rejected.jsonl"]] == ["unparsable_problem"] * 5
    assert [entry["call_ids"] for entry in read[ROUND_0]] == [
        [f"problem/{snippet.id}/0"] for i, snippet in enumerate(snippets) if i % 4
    ]
    assert all(entry["usage"] == {"prompt_tokens": 3, "completion_tokens": 2} for entry in read[ROUND_0])
    assert [entry["parent_id"] for entry in read[ROUND_1]] == [entry["id"] for entry in read[ROUND_0]]
