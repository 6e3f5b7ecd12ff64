import pytest

from wizardcoder_jax.instructions.rules import (
    INSTRUCTION_RULES,
    RESPONSE_RULES,
    Candidate,
    first_failure,
    is_equal_verdict,
)

PARENT = "Write a function that sorts a list."


def instruction_failure(text, finish_reason="stop", parent=PARENT):
    candidate = Candidate(parent_instruction=parent, instruction=text, finish_reason=finish_reason)
    return (first_failure(INSTRUCTION_RULES, candidate) or (None,))[0]


def response_failure(text, finish_reason="stop"):
    candidate = Candidate(parent_instruction=PARENT, instruction="Harder", response=text, finish_reason=finish_reason)
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
    ],
)
def test_an_evolved_instruction_fails_by_the_named_rule(text, rule):
    assert instruction_failure(text) == rule


def test_template_words_that_the_parent_had_are_no_leak():
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
        ("\udfff", "not_utf8"),
    ],
)
def test_a_response_fails_by_the_named_rule(text, rule):
    assert response_failure(text) == rule


def test_a_text_that_was_cut_off_is_truncated():
    assert instruction_failure("Sort a long list", "length") == "truncated"
    assert response_failure("def f(", "length") == "truncated"
    assert response_failure("def f(): pass", None) is None


@pytest.mark.parametrize(
    ("judgement", "equal"),
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
def test_only_a_clear_verdict_is_equal(judgement, equal):
    assert is_equal_verdict(judgement) is equal
