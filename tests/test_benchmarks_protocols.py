import typing

import pytest

from wizardcoder_jax import config, prompts
from wizardcoder_jax.benchmarks import cleaners
from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.protocols import PROTOCOLS, get_protocol
from wizardcoder_jax.errors import InputError

PROBLEM = Problem(task_id="T/0", prompt="def f():\n", entry_point="f", canonical_solution="", test="")


def test_protocols_are_those_of_the_settings():
    assert tuple(PROTOCOLS) == typing.get_args(config.Protocol)


def test_an_unknown_protocol_names_the_known_ones():
    with pytest.raises(InputError, match="wizardcoder-humaneval-v1, "):
        get_protocol("v1")


def test_wizardcoder_prompts_differ_by_one_blank_line():
    v1, v2 = (get_protocol(f"wizardcoder-humaneval-{v}").prompt(PROBLEM) for v in ("v1", "v2"))
    ask = "### Instruction:\nCreate a Python script for this problem:\ndef f():\n\n\n### Response:"
    assert v1 == f"{prompts.HEADER}\n\n{ask}"
    assert v2 == f"{prompts.HEADER}\n\n\n{ask}"


def test_only_the_chat_protocol_needs_a_template_and_only_completion_stops_early():
    assert [name for name, protocol in PROTOCOLS.items() if protocol.needs_chat_template] == ["chat"]
    assert [name for name, protocol in PROTOCOLS.items() if protocol.stop_strings] == ["completion"]
    assert get_protocol("completion").prompt(PROBLEM) == PROBLEM.prompt
    assert PROBLEM.prompt.strip() in get_protocol("chat").prompt(PROBLEM)


def test_stored_answers_cannot_be_sampled():
    with pytest.raises(InputError, match="stored"):
        get_protocol("stored").prompt(PROBLEM)


MAIN = 'if __name__ == "__main__":'


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("\n    return 1\n", "\n    return 1\n"),  # no rule: nothing is stripped
        ("def f():\n\treturn\t1", "def f():\n    return    1"),
        ("a\r\nb\r", "a\nb"),
        ("Sure:\n```python\ndef f():\n    pass\n```\nIt works.", "def f():\n    pass"),
        ("```python\nx = 1\n", "\nx = 1"),  # fence left open
        ("```python\na\n```python\nb\n```\nc", "a\n\nb"),  # every opening goes before the closing is looked for
        ("```python\na\n```\n```python\nb\n```", "a"),  # first fence, not last
        ("```\nx = 1\n```", "```\nx = 1\n```"),  # an unnamed fence is no fence
        (f"def f(): pass\n\n{MAIN}\n    f()", "def f(): pass"),
        ('x = __name__ == "__main__"\n', 'x = __name__ == "__main__"\n'),  # the author's raises here
        ("def f(): pass\n\n# Example usage:\nf()", "def f(): pass"),
        (f"  a\n# Example usage\n{MAIN}\n", "a"),
        ("```python\na\n# Example usage\nb\n```", "a"),
        ("", ""),
    ],
)
def test_wizardcoder_cleaning_follows_the_authors_rules(raw, cleaned):
    assert cleaners.wizardcoder_humaneval(raw) == cleaned


def test_wizardcoder_cleaning_finds_the_answer_with_and_without_its_prompt():
    prompt = prompts.wizardcoder_humaneval_v1("def f():\n")
    for raw in ("\nA", "\nA### Response:\nB", prompt + "\nA", prompt + "\nA### Response:B", "### Response:\nA"):
        assert cleaners.wizardcoder_humaneval(raw) == "\nA"


@pytest.mark.parametrize("stop", cleaners.COMPLETION_STOPS)
def test_a_completion_ends_at_each_stop_string_and_keeps_its_indentation(stop):
    assert cleaners.completion(f"    return 1\n{stop}x\nprint(1)") == "    return 1\n"


def test_a_completion_without_stop_string_is_untouched():
    assert cleaners.completion("    return 1  \n\n") == "    return 1  \n\n"


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Here:\n```python\n    a\n```\nand\n```python\nb\n```", "    a\n"),
        ("```\na\n```", "a\n"),
        ("```py\na\nb", "a\nb"),
        ("    return 1", "    return 1"),
        ("use `x` and ``` here", "use `x` and ``` here"),
        ("```python\n```", ""),
    ],
)
def test_a_chat_answer_is_its_first_fenced_block(raw, cleaned):
    assert cleaners.chat(raw) == cleaned
