import time

import pytest

from tests.helpers.shared_data import shared
from wizardcoder_jax.core.instruction_template import with_input
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.evol_instruct.elimination_rules import (
    INSTRUCTION_RULES,
    RESPONSE_RULES,
    CandidateRecord,
    first_failure,
    is_equal_verdict,
)
from wizardcoder_jax.evol_instruct.oss_instruct import parse_problem

ALPACA = "codealpaca/code_alpaca_20k.json.gz"
PARENT = "Write a function that sorts a list."


def instruction_failure(text, finish_reason="stop", parent=PARENT, task="generate"):
    candidate = CandidateRecord(parent_instruction=parent, instruction=text, finish_reason=finish_reason, task=task)
    return (first_failure(INSTRUCTION_RULES, candidate) or (None,))[0]


def response_failure(text, finish_reason="stop", task="generate", language=None):
    candidate = CandidateRecord(
        **{"parent_instruction": PARENT, "instruction": "Harder", "response": text, "finish_reason": finish_reason},
        task=task,
        language=language,
    )
    return (first_failure(RESPONSE_RULES, candidate) or (None,))[0]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Write a function that sorts a list in place.", None),
        ("", "empty"),
        (" \n", "empty"),
        ("Sort \ud800", "not_utf8"),
        (" write a function\nthat SORTS a list. ", "identical_to_parent"),
        ("#Rewritten Prompt#: sort", "leaked_template"),
        ("Solve the given prompt.", "leaked_template"),
        ("Here is the given programming test question, harder: sort.", "leaked_template"),
        ("Sort a list.\n\n#Updated Test#", "leaked_template"),
        ("**Modified Question:**\nSort a list backwards.", "leaked_template"),
        ("Rewritten question: sort a list backwards.", "leaked_template"),
        ("Sort it.\n\n#Slightly Increased Difficulty Test#\nSort it backwards.", "leaked_template"),
        ("Draw inspiration from the given one and sort.", "leaked_template"),
        ("Sort the updated list and print each version of it.", None),
        ("# Test Cases\nSort: [2, 1]", None),
        ("Sure! Here is one:\nSort a list backwards.", "announced"),
        ("Certainly, sort a list backwards.", "announced"),
        ("Here's a more challenging version of the question:\n\nSort a list backwards.", "announced"),
        ("I have modified it.\nSort a list backwards.", "announced"),
        ("Here is a function with failing tests:\nassert sort([2, 1]) == [1, 2]", None),
        ("Sort.\n\n## Solution\ndef f(): ...", "answered"),
        ("Sort.\nHere is the corrected code:\nx", "answered"),
        ("Sort.\n#Erroneous Code Reference#\nHere is a piece of erroneous code:\nx", None),
        ("```python\ndef f(x):\n    return sorted(x)\n```", "answered"),
        ('```python\ndef f(x):\n    """Sort x backwards."""\n```', None),
        ("Mend this:\n```python\ndef f(x):\n    return x\n```", None),
        ("I'm sorry, but I cannot help with that.", "refused"),
        ("I can\u2019t assist with malware.", "refused"),
        ("I cannot get this to work: sort([2, 1]) gives [2, 1]. Why?", None),
        ("Print 'Sorry, try again' until the list is sorted.", None),
        ("...", "only_punctuation_or_stop_words"),
    ],
)
def test_an_evolved_instruction_fails_the_expected_rule(text, rule):
    assert instruction_failure(text) == rule


@pytest.mark.parametrize("words", ["## Solution", "#Updated Test#"])
def test_headings_that_the_parent_has_too_are_allowed(words):
    assert instruction_failure(f"Sort.\n{words}\nx", parent=f"{words}\nSort") is None


def test_an_evolution_of_a_task_about_code_must_keep_code():
    parent = "Explain this.\n\ndef f(x):\n    return x"
    for task in ("explain", "summarise", "repair", "test", "translate"):
        assert instruction_failure("Explain to a child why functions return.", parent=parent, task=task) == "lost_code"
        assert instruction_failure("Explain this.\n\ndef g(x):\n    return -x", parent=parent, task=task) is None
    assert instruction_failure("Write a poem about functions.", parent=parent) is None
    assert instruction_failure("Say what recursion is, to a child.", parent="Say what recursion is.", task="explain") is None


@pytest.mark.parametrize(
    ("text", "task", "language", "rule"),
    [
        ("It adds two numbers.", "explain", None, None),
        ("It adds two numbers.", "generate", None, None),
        ("It adds two numbers.", "repair", None, "no_code"),
        ("It adds two numbers.", "test", None, "no_code"),
        ("It adds two numbers.", "translate", "java", "no_code"),
        ("```java\nint x = 1;\n```", "translate", "java", None),
        ("```python\nx = 1\n```", "translate", "java", "wrong_language"),
        ("```js\nlet x = 1;\n```", "generate", "python", "wrong_language"),
        ("```js\nlet x = 1;\n```", "generate", None, None),
        ("```html\n<p>\n```\n```js\nlet x = 1;\n```", "generate", "javascript", None),
        ("```\nlet x = 1;\n```", "generate", "python", None),  # nobody says what it is
        ("```js\nlet x = 1;\n```", "explain", "python", None),
    ],
)
def test_an_answer_must_match_its_task_and_language(text, task, language, rule):
    assert response_failure(text, task=task, language=language) == rule


def test_few_real_evolutions_and_almost_no_human_instructions_fail():
    """The paper keeps 94 to 98 % of a round. Code Alpaca was never evolved, so it cannot leak prompt words."""
    evolved = [entry for _, entry in read_records(shared("evol/evol_round1_of_2k.json"))]
    failed = [instruction_failure(entry["instruction"], parent="") or response_failure(entry["output"]) for entry in evolved]
    assert 0.02 * len(evolved) < sum(rule is not None for rule in failed) < 0.06 * len(evolved)
    human = [with_input(entry["instruction"], entry["input"]) for _, entry in read_records(shared(ALPACA))]
    assert sum(instruction_failure(text, parent="") is not None for text in human) <= 0.0005 * len(human)


def test_template_words_that_the_parent_has_too_are_not_a_leak():
    assert instruction_failure("Parse the given prompt twice.", parent="Parse the given prompt.") is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("```python\nx = 1\n```", None),
        ("42", None),
        ("", "empty"),
        ("I'm Sorry, I can't help.", "sorry"),
        ("sorry " + "word " * 78, "sorry"),  # 79 words
        ("sorry " + "word " * 79, None),  # 80 words
        ("...!", "only_punctuation_or_stop_words"),
        ("The, and of it.", "only_punctuation_or_stop_words"),
        ("The list", None),
        ("I cannot help with this.", "refused"),
        ("As an AI language model, I do not run code.", "refused"),
        ("\udfff", "not_utf8"),
    ],
)
def test_a_response_fails_the_expected_rule(text, rule):
    assert response_failure(text) == rule


def test_a_text_cut_off_by_the_token_limit_is_truncated():
    assert instruction_failure("Sort a long list", "length") == "truncated"
    assert response_failure("def f(", "length") == "truncated"
    assert response_failure("def f(): pass", None) is None


@pytest.mark.parametrize(
    ("judgment", "equal"),
    [
        ("Equal", True),
        ("equal.", True),
        ("**Equal**", True),
        ("Not Equal", False),
        ("NOT  equal", False),
        ("not-equal", False),
        ("Unequal", False),
        ("I cannot say", False),
        ("", False),
    ],
)
def test_only_a_clear_verdict_counts_as_equal(judgment, equal):
    assert is_equal_verdict(judgment) is equal


@pytest.mark.parametrize(
    "unit", ["#", "-", "~", "_", "a(", "```\n", "<a ", "here is a new question ", "[Solution]\n", "``` a\n"]
)
def test_rules_take_linear_time_on_hostile_texts(unit):
    """A rule with quadratic run time would take hours."""
    text = (unit * 200_000)[:200_000]
    start = time.process_time()
    for task in ("generate", "repair"):
        instruction_failure(text, task=task)
        response_failure(text, task=task, language="rust")
    parse_problem(text)
    assert time.process_time() - start < 60
