import dataclasses
import typing

import pytest

from wizardcoder_jax import config
from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.protocols import PROTOCOLS, get_protocol
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import HEADER

pytestmark = pytest.mark.quick

PROBLEM = Problem(task_id="T/0", prompt="def f():\n", entry_point="f", canonical_solution="", test="")


def test_the_protocols_equal_the_choices_of_the_setting():
    assert tuple(PROTOCOLS) == typing.get_args(config.Protocol)


def test_the_error_for_an_unknown_protocol_names_the_supported_ones():
    with pytest.raises(InputError, match="wizardcoder-humaneval-v1, "):
        get_protocol("v1")


def test_wizardcoder_prompts_differ_by_one_blank_line():
    v1, v2 = (get_protocol(f"wizardcoder-humaneval-{v}").prompt(PROBLEM) for v in ("v1", "v2"))
    ask = "### Instruction:\nCreate a Python script for this problem:\ndef f():\n\n\n### Response:"
    assert v1 == f"{HEADER}\n\n{ask}"
    assert v2 == f"{HEADER}\n\n\n{ask}"


def test_only_chat_protocols_need_a_template_and_only_two_protocols_have_stop_strings():
    assert [name for name, protocol in PROTOCOLS.items() if protocol.needs_chat_template] == ["chat", "evalplus"]
    assert [name for name, protocol in PROTOCOLS.items() if protocol.stops(PROBLEM)] == ["completion", "evalplus"]
    assert get_protocol("completion").prompt(PROBLEM) == PROBLEM.prompt
    assert PROBLEM.prompt.strip() in get_protocol("chat").prompt(PROBLEM)


def test_the_stored_protocol_cannot_be_sampled():
    with pytest.raises(InputError, match="stored"):
        get_protocol("stored").prompt(PROBLEM)


def test_the_mbpp_prompt_shows_the_question_and_its_asserts_after_a_blank_line():
    problem = dataclasses.replace(PROBLEM, question="Add    it.", examples=("assert f(1) == 2", "assert f(2) == 3"))
    asked = "Create a Python script for this problem:\n\nAdd\tit.\nTest examples:\nassert f(1) == 2\nassert f(2) == 3"
    assert get_protocol("wizardcoder-mbpp").prompt(problem) == f"{HEADER}\n\n### Instruction:\n{asked}\n\n### Response:"


def test_the_mbppplus_prompt_shows_one_assert_in_a_fence_after_two_blank_lines():
    problem = dataclasses.replace(PROBLEM, question="Add it.", examples=("assert f(1) == 2", "assert f(2) == 3"))
    asked = "Add it. Your code should satisfy the following assertion:\n```python\nassert f(1) == 2\n```"
    expected = f"{HEADER}\n\n\n### Instruction:\n{asked}\n\n### Response:"
    assert get_protocol("wizardcoder-mbppplus").prompt(problem) == expected


@pytest.mark.parametrize("name", ["wizardcoder-mbpp", "wizardcoder-mbppplus"])
def test_the_mbpp_protocols_are_an_error_for_other_benchmarks(name):
    with pytest.raises(InputError, match=f"{name}.* is for the MBPP benchmarks; T/0"):
        get_protocol(name).prompt(PROBLEM)


def test_an_evalplus_answer_begins_inside_a_fence():
    assert get_protocol("evalplus").answer_prefix.endswith(":\n```python\n")
    assert get_protocol("evalplus").prompt(PROBLEM) == get_protocol("chat").prompt(PROBLEM)
