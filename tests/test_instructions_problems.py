import asyncio

import pytest

from wizardcoder_jax.clients.completion import Completion
from wizardcoder_jax.instructions.problems import PROMPT, make_seed, parse_problem
from wizardcoder_jax.instructions.records import Record, Rejection
from wizardcoder_jax.instructions.snippets import Snippet

SNIPPET = Snippet(id="snippet-1", code="x = {1: 2}", language="python")
GOOD = "[Problem Description]\nAdd two numbers.\n\n[Solution]\n```python\ndef add(a, b):\n    return a + b\n```"


def seeded(reply, finish_reason="stop", snippet=SNIPPET):
    """What comes of a reply, and the prompts that were asked."""
    asked = []

    async def question(prompt, purpose):
        asked.append((purpose, prompt))
        return Completion(text=reply, finish_reason=finish_reason, prompt_tokens=1, completion_tokens=1, model="t-1")

    return asyncio.run(make_seed(snippet, question)), asked


def test_the_prompt_is_magicoders_with_the_snippet_in_it():
    _, ((purpose, prompt),) = seeded(GOOD)
    assert purpose == "problem" and "Code snippet for inspiration:\n```\nx = {1: 2}\n```\n\nGuidelines" in prompt
    assert prompt.startswith("You are exceptionally skilled at crafting") and prompt.endswith("you provided.")
    assert len(PROMPT.partition("\n\n")[2]) == 709  # characters of magicoder's data/prompt.txt


def test_a_reply_with_both_sections_is_a_seed_of_round_0():
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
    assert two.language is None  # the snippet was Go, the solution is not


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
def test_a_reply_that_is_no_seed_is_dropped_by_the_named_rule(reply, finish_reason, rule):
    rejection, asked = seeded(reply, finish_reason)
    assert isinstance(rejection, Rejection) and (rejection.rule, len(asked)) == (rule, 1)
    assert rejection.evidence and rejection.record.round == 0
    "".join(map(str, rejection.to_json().values())).encode("utf-8")
