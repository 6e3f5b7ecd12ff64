import asyncio

import pytest

from wizardcoder_jax.evol_instruct.elimination_rules import CandidateRecord
from wizardcoder_jax.evol_instruct.execution_filter import (
    ExecutionResult,
    execution_judge,
    extract_python,
    is_valid_python,
    parse_asserts,
)
from wizardcoder_jax.evol_instruct.judges import Inconclusive
from wizardcoder_jax.llm_client.completion import Completion

pytestmark = pytest.mark.quick

DOUBLE = "def double(x):\n    return 2 * x\n"
SET_UP = "x = f(1)\nassert x"
TEST = "def test_f():\n    x = f(1)\n    assert x == 2"
FENCED = f"Here it is:\n\n```python\n{DOUBLE}```\n"


def run_in_process(code, test):
    """Run a program of this test in this process."""
    try:
        exec(compile(f"{code}\n{test}", "answer", "exec"), {"__name__": "answer"})
    except AssertionError as error:
        return ExecutionResult(reason="assertion", detail=str(error))
    except SyntaxError as error:
        return ExecutionResult(reason="syntax", detail=str(error))
    except Exception as error:
        return ExecutionResult(reason=f"exception:{type(error).__name__}", detail=str(error))
    return ExecutionResult(reason="passed", detail="")


def judged(response, reply="", task="generate", run=run_in_process):
    """Return (verdict, prompts that the teacher received, programs that were run)."""
    asked, ran = [], []

    async def ask_teacher(prompt, purpose):
        assert purpose == "tests"
        asked.append(prompt)
        return Completion(text=reply, finish_reason="stop", prompt_tokens=1, completion_tokens=1, model="m")

    async def recorded(code, test):
        ran.append((code, test))
        return run(code, test)

    candidate = CandidateRecord(parent_instruction="p", instruction="Double a number.", response=response, task=task)
    return asyncio.run(execution_judge(recorded).check(candidate, ask_teacher)), asked, ran


def test_an_answer_that_runs_and_passes_the_teachers_asserts_is_kept():
    verdict, asked, ran = judged(FENCED, "```python\nassert double(2) == 4\nassert double(-1) == -2\n```")
    assert verdict is None
    assert len(asked) == 1 and "Double a number." in asked[0] and DOUBLE in asked[0]
    assert [test for _, test in ran] == ["", "assert double(2) == 4\nassert double(-1) == -2"]


@pytest.mark.parametrize(
    ("response", "reply", "evidence"),
    [
        (FENCED, "assert double(2) == 5", "assertion"),
        ("```python\ndef double(x:\n    return\n```", "", "syntax"),
        ("```python\nprint(undefined)\n```", "", "exception:NameError: name 'undefined' is not defined"),
        ("```py\n1 / 0\n```", "", "exception:ZeroDivisionError"),
        (DOUBLE + "print(double('a') + 1)\n", "", "exception:TypeError"),
        ("```python\nx = 1\n```\nAnd then:\n```python\nassert x == 2\n```", "", "assertion"),
    ],
)
def test_an_answer_that_does_not_compile_run_or_pass_is_dropped(response, reply, evidence):
    verdict, _, _ = judged(response, reply)
    assert isinstance(verdict, str) and verdict.startswith(evidence)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("It is done by sorting.", "no_python"),
        ("42", "no_python"),
        ("Yes", "no_python"),
        ("```javascript\nconst x = 1;\n```", "no_python"),
        ("```\n$ pip install x\n```", "no_python"),
        ("SELECT name FROM users;", "no_python"),
        ("```python\nname = input('Name? ')\n```", "needs_input"),
        ("```python\nimport requests\nrequests.get('http://x')\n```", "needs_network"),
        ("```python\nimport no_such_package_here\n```", "needs_package"),
        ("```python\nopen('/no/such/file')\n```", "needs_files"),
        ("```python\nraise EOFError\n```", "needs_input"),
    ],
)
def test_answers_that_need_what_the_sandbox_lacks_are_inconclusive(response, reason):
    verdict, asked, _ = judged(response)
    assert verdict == Inconclusive(reason=reason) and asked == []


@pytest.mark.parametrize(
    ("reason", "response", "verdict"),
    [
        ("timeout", "```python\nimport time\ntime.sleep(100)\n```", Inconclusive(reason="runs_on")),
        ("timeout", "```python\nwhile True:\n    pass\n```", Inconclusive(reason="runs_on")),
        ("timeout", FENCED, "timeout: d"),
        ("memory", FENCED, "memory: d"),
        ("exit", FENCED, Inconclusive(reason="exits")),
        ("sandbox", FENCED, Inconclusive(reason="not_run")),
        ("exception:TclError", FENCED, Inconclusive(reason="needs_display")),
    ],
)
def test_each_result_has_its_verdict(reason, response, verdict):
    assert judged(response, run=lambda code, test: ExecutionResult(reason=reason, detail="d"))[0] == verdict


def test_a_reply_without_usable_asserts_is_inconclusive():
    assert judged(FENCED, "I cannot test this.")[0] == Inconclusive(reason="no_asserts")
    assert judged(FENCED, "assert True")[0] == Inconclusive(reason="no_asserts")
    assert judged(FENCED, "assert triple(2) == 6")[0] == Inconclusive(reason="bad_asserts")


def test_the_teacher_is_asked_for_asserts_only_if_there_is_something_to_call():
    assert judged("```python\nprint(1 + 1)\n```") == (None, [], [("print(1 + 1)\n", "")])


@pytest.mark.parametrize("task", ["explain", "summarise", "test"])
def test_answers_to_other_tasks_are_not_run(task):
    assert judged("```python\n1 / 0\n```", task=task) == (Inconclusive(reason="no_python"), [], [])


@pytest.mark.parametrize(
    ("response", "program"),
    [
        (FENCED, DOUBLE),
        (f"```\n{DOUBLE}```", DOUBLE),
        ("~~~Python\nx = 1\n~~~", "x = 1\n"),
        (f"```python\n{DOUBLE}```\nUse it:\n```python\nprint(double(3))\n```", f"{DOUBLE}\nprint(double(3))\n"),
        (f"```python\n{DOUBLE}```\nOutput:\n```\n6\n```", DOUBLE),
        (f"```python\n{DOUBLE}```\nNot so:\n```python\nif x\n```", DOUBLE),
        ("```python\n>>> x = 2\n>>> x\n2\n```", "x = 2\nx\n"),
        (DOUBLE, DOUBLE),
        ("print('a')", "print('a')"),
        ("Sort it.", None),
        ("name", None),
        ("x + y", None),
        ("", None),
        ("```python\n\n```", None),
        ("```java\nint x;\n```\n```python\nx = 1\n```", "x = 1\n"),
    ],
)
def test_the_python_code_of_an_answer_is_found(response, program):
    assert extract_python(response) == program


@pytest.mark.parametrize(
    ("reply", "test"),
    [
        ("```python\nassert f(1) == 2\n```", "assert f(1) == 2"),
        ("assert f( 1 )==2, 'no'", "assert f(1) == 2, 'no'"),
        (
            "```python\nfrom math import pi\nx = f(1)\nprint(x)\nassert x == pi\n```",
            "from math import pi\nx = f(1)\nassert x == pi",
        ),
        (
            "```python\ndef test_f():\n    x = f(1)\n    assert x == 2\n```",
            "def test_f():\n    x = f(1)\n    assert x == 2\ntest_f()",
        ),
        ("Sure!\nassert f(1) == 2\nassert f(2 == 3\nassert f(3) == 4", "assert f(1) == 2\nassert f(3) == 4"),
        ("x = 1", ""),
        ("assert False", ""),
        ("", ""),
    ],
)
def test_asserts_are_extracted_from_a_reply(reply, test):
    assert parse_asserts(reply) == test


@pytest.mark.parametrize("code", ["(" * 10_000, "x = \0", "def f(:", "'\\ud800" + "("])
def test_hostile_code_is_not_valid_python_and_raises_nothing(code):
    assert not is_valid_python(code)
    assert parse_asserts(f"assert {code}") == ""
    assert isinstance(parse_asserts("assert f(" + "-" * 3000 + "1) == 2"), str)  # too deep for some parsers, not for all
