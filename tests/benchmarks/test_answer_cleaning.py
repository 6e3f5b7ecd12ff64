import random

import pytest

from wizardcoder_jax import sample
from wizardcoder_jax.benchmarks import answer_cleaning
from wizardcoder_jax.benchmarks import prompts as benchmark_prompts
from wizardcoder_jax.benchmarks.problem import HUMANEVAL_STOPS, Problem
from wizardcoder_jax.benchmarks.program_assembly import sample_program
from wizardcoder_jax.benchmarks.protocols import PROTOCOLS, get_protocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.config import SampleConfig
from wizardcoder_jax.core.instruction_template import wizardcoder_prompt

pytestmark = pytest.mark.quick

PROBLEM = Problem(task_id="T/0", prompt="def f():\n", entry_point="f", canonical_solution="", test="")
MAIN = 'if __name__ == "__main__":'


def clean(name, raw, problem=PROBLEM):
    return get_protocol(name).cleaner(raw, problem)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("\n    return 1\n", "\n    return 1\n"),  # no rule applies: nothing is stripped
        ("def f():\n\treturn\t1", "def f():\n    return    1"),
        ("a\r\nb\r", "a\nb"),
        ("Sure:\n```python\ndef f():\n    pass\n```\nIt works.", "def f():\n    pass"),
        ("```python\nx = 1\n", "\nx = 1"),  # the fence is not closed
        ("```python\na\n```python\nb\n```\nc", "a\n\nb"),  # every opening is removed before the closing is searched
        ("```python\na\n```\n```python\nb\n```", "a"),  # first fence, not last
        ("```\nx = 1\n```", "```\nx = 1\n```"),  # only a python fence counts
        (f"def f(): pass\n\n{MAIN}\n    f()", "def f(): pass"),
        ('x = __name__ == "__main__"\n', 'x = __name__ == "__main__"\n'),  # WizardCoder's script raises an error here
        ("def f(): pass\n\n# Example usage:\nf()", "def f(): pass"),
        (f"  a\n# Example usage\n{MAIN}\n", "a"),
        ("```python\na\n# Example usage\nb\n```", "a"),
        ("```python\nx = '```'\ny\n```", "x = '"),  # any three backticks end it, even inside a line
        ("", ""),
    ],
)
def test_wizardcoder_cleaning_follows_the_original_rules(raw, cleaned):
    assert clean("wizardcoder-humaneval-v1", raw) == clean("wizardcoder-humaneval-v2", raw) == cleaned


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\r\nb\r", "a\r\nb\r"),  # unlike for HumanEval
        ("```python\nx = '```'\ny\n```", "x = '```'\ny"),  # only backticks at the start of a line end it
        ("```python\na\n# Test examples\nassert a", "a"),
        ("```python\na\nassert a\n```", "a\nassert a"),
        ("one### Response:\ntwo### Response:\nthree", "\nthree"),  # the last mark counts
    ],
)
def test_mbpp_cleaning_has_its_own_rules(raw, cleaned):
    assert clean("wizardcoder-mbpp", raw) == cleaned


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\r\nb\r", "a\nb"),
        ("def f(): pass\nassert f()", "def f(): pass"),
        ("x = 'assertion'", "x = '"),
        ("```python\na\n# Test examples\n```", "a\n# Test examples"),
    ],
)
def test_mbppplus_cleaning_has_its_own_rules(raw, cleaned):
    assert clean("wizardcoder-mbppplus", raw) == cleaned


def test_wizardcoder_cleaning_finds_the_answer_with_or_without_its_prompt():
    prompt = benchmark_prompts.wizardcoder_humaneval_v1("def f():\n")
    for raw in ("\nA", "\nA### Response:\nB", prompt + "\nA", prompt + "\nA### Response:B", "### Response:\nA"):
        assert clean("wizardcoder-humaneval-v1", raw) == "\nA"


class OriginalError(Exception):
    """WizardCoder's script raises a ValueError for this answer."""


def section(text, begin, end):
    """Return the stripped text from the first `begin` to the next `end`, with every `begin` removed."""
    if begin not in text:
        return text
    _, _, rest = text.partition(begin)
    body = "".join((begin + rest).strip().split(begin))
    head, mark, _ = body.partition(end)
    return head.strip() if mark else body


def up_to(text, sign, line):
    if sign not in text:
        return text
    head, mark, _ = text.partition(line)
    if not mark:
        raise OriginalError
    return head.strip()


def original(kind, generated):
    """Clean prompt and answer by the steps of WizardCoder's two scripts; an independent implementation."""
    parts = generated.split("### Response:")
    answer = "    ".join((parts[1] if kind == "humaneval" else parts[-1]).split("\t"))
    if kind != "mbpp":
        answer = "".join(answer.split("\r"))
    answer = section(answer, "```python", "```" if kind == "humaneval" else "\n```")
    answer = up_to(answer, '__name__ == "__main__"', 'if __name__ == "__main__":')
    for line in {"humaneval": ["# Example usage"], "mbpp": ["# Example usage", "# Test examples"]}.get(
        kind, ["# Example usage", "assert"]
    ):
        answer = up_to(answer, line, line)
    return answer


PIECES = (
    *("```python", "```", "\n```", "\n", "\n\n", " ", "    ", "\t", "\r\n", "\r", "def f():", "return 1", "x = '```'", "é"),
    *(MAIN, '__name__ == "__main__"', "# Example usage", "# Test examples", "assert f() == 1", "### Response:", "Sure:"),
    *("\u2028", "\x0c", "\x85", "\xa0", "``", "`", "```py", "```python3"),
)


@pytest.mark.parametrize(("protocol", "kind"), [
    ("wizardcoder-humaneval-v1", "humaneval"), ("wizardcoder-mbpp", "mbpp"), ("wizardcoder-mbppplus", "mbppplus"),
])  # fmt: skip
def test_wizardcoder_cleaning_equals_the_original_on_random_answers(protocol, kind):
    rng, prompt = random.Random(0), wizardcoder_prompt("Do it.")
    num_equal = num_raised = num_changed = 0
    for _ in range(20_000):
        raw = "".join(rng.choices(PIECES, k=rng.randrange(1, 12)))
        ours = clean(protocol, raw)
        assert ours == clean(protocol, prompt + raw) or raw.lstrip().startswith("### Response:")
        try:
            expected = original(kind, prompt + raw)
        except OriginalError:
            num_raised += 1
            continue
        assert clean(protocol, prompt + raw) == expected
        num_equal, num_changed = num_equal + 1, num_changed + (expected != raw)
    assert min(num_equal, num_raised, num_changed) > 500


@pytest.mark.parametrize("stop", HUMANEVAL_STOPS)
def test_a_completion_ends_at_each_stop_string_and_keeps_its_indentation(stop):
    assert clean("completion", f"    return 1\n{stop}x\nprint(1)") == "    return 1\n"


def test_a_completion_without_a_stop_string_is_unchanged():
    assert clean("completion", "    return 1  \n\n") == "    return 1  \n\n"


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
    assert clean("chat", raw) == cleaned


def test_evalplus_sanitizes_a_full_answer_alone_and_a_continuation_with_the_prompt():
    answer = (
        "Sure!\n```python\nimport math\n\ndef f():\n    return g()\n\ndef g():\n    return 1\n\ndef h():\n    return 2\n```\n"
    )
    assert clean("evalplus", answer) == "import math\ndef f():\n    return g()\ndef g():\n    return 1"
    assert clean("evalplus", "    return 1\n\nprint(f())\n") == "def f():\n\n    return 1"


def test_a_sanitized_answer_is_the_whole_program_only_for_evalplus_benchmarks():
    row = Sample(task_id="T/0", sample_index=0, completion="def f():\n    return 1\n\nprint(f())")
    plus = Problem(task_id="T/0", prompt="PROMPT\n", entry_point="f", test="", sanitized_alone=True)
    plain = Problem(task_id="T/0", prompt="PROMPT\n", entry_point="f", test="")
    protocol = get_protocol("evalplus")
    assert sample_program(plus, row, protocol).candidate == "def f():\n    return 1"
    assert sample_program(plain, row, protocol).candidate == "PROMPT\ndef f():\n    return 1"
    solution = Sample(task_id="T/0", sample_index=0, solution="x()\ndef f():\n    return 1\nx()")
    assert sample_program(plus, solution, protocol).candidate == "def f():\n    return 1"


HOSTILE = ("", "\0", "\ud800", "```python", "```" * 1000, "(" * 5000, "x\n" * 2000, "'" * 10_000, "\\", "\n" * 2000)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
def test_no_cleaner_raises(protocol, raw):
    assert isinstance(clean(protocol, raw), str)


def test_legacy_decoding_attaches_punctuation_and_contractions_to_the_preceding_word():
    text = "f(a , b) . It 's what I 'm told , is n't it ? ' x '"
    assert answer_cleaning.legacy_decode(text) == "f(a, b). It's what I'm told, isn't it?'x '"


@pytest.mark.parametrize(("legacy", "raw"), [(False, "x = 1 , 2"), (True, "x = 1, 2")])
def test_answers_are_decoded_unchanged_unless_legacy_decoding_is_requested(legacy, raw):
    class Tokenizer:
        def decode(self, tokens):
            return "x = 1 , 2"

    assert not SampleConfig(model="m", output="o", benchmark="mini").legacy_decode
    assert sample._answer_text(Tokenizer(), (1,), legacy=legacy) == raw
