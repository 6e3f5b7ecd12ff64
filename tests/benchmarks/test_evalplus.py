import functools
import hashlib
import json
import math
from pathlib import Path

import pytest

from tests.helpers.shared_data import shared
from wizardcoder_jax.benchmarks import evalplus, evalplus_check
from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.core.errors import InputError

pytestmark = pytest.mark.quick

RECORD = {
    "task_id": "HumanEval/0",
    "prompt": 'def f(x):\n    """Doc."""\n',
    "entry_point": "f",
    "canonical_solution": "    return x + 1\n",
    "base_input": [[1], [2]],
    "plus_input": [[10]],
    "atol": 0,
}
HUMANEVAL_PLUS, MBPP_PLUS = "humanevalplus/HumanEvalPlus-v0.1.10.jsonl.gz", "mbppplus/MbppPlus-v0.2.0.jsonl.gz"


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def run(problem, candidate):
    exec(candidate + problem.test, {})


@pytest.fixture
def problem(tmp_path):
    return evalplus.read_humaneval_plus(write(tmp_path / "p.jsonl", RECORD))[0]


def test_the_reference_passes_and_a_wrong_result_is_reported_with_its_input(problem):
    run(problem, "def f(x):\n    return 1 + x\n")
    with pytest.raises(AssertionError, match="base input 1: got 0, expected 3"):
        run(problem, "def f(x):\n    return 2 if x == 1 else 0\n")
    with pytest.raises(AssertionError, match="plus input 0: got 0, expected 11"):
        run(problem, "def f(x):\n    return x + 1 if x < 10 else 0\n")


def test_a_candidate_that_modifies_its_arguments_does_not_affect_the_reference(tmp_path):
    changed = RECORD | {"canonical_solution": "    return sum(x)\n", "base_input": [[[1, 2]]], "plus_input": {}}
    (problem,) = evalplus.read_humaneval_plus(write(tmp_path / "p.jsonl", changed))
    with pytest.raises(AssertionError, match="got 0, expected 3"):
        run(problem, "def f(x):\n    x.clear()\n    return 0\n")


def test_a_call_over_its_limit_ends_the_test(problem, monkeypatch):
    quick = problem.test.replace("MIN_LIMIT_S, LIMIT_FACTOR = 1.0, 4.0", "MIN_LIMIT_S, LIMIT_FACTOR = 0.01, 0.0")
    assert quick != problem.test
    namespace = {}
    with pytest.raises(BaseException, match=r"a call took longer than 0\.05 s") as caught:
        exec(f"def f(x):\n    while True:\n        pass\n{quick}", namespace)
    assert type(caught.value).__name__ == evalplus_check.CallTimeout.__name__


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atol": "0"}, '"atol" must be a number'),
        ({"base_input": [1]}, '"base_input" must be a list of argument lists'),
        ({"plus_input": None}, '"plus_input" must be a list of argument lists'),
        ({"task_id": "x"}, "expected a task_id such as Mbpp/2"),
        ({"entry_point": "f()"}, "an identifier as entry_point"),
        ({"canonical_solution": 3}, '"canonical_solution" must be of type str'),
    ],
)
def test_a_bad_record_is_reported_with_its_line(tmp_path, change, message):
    with pytest.raises(InputError, match=rf"p\.jsonl:1: .*{message}"):
        evalplus.read_humaneval_plus(write(tmp_path / "p.jsonl", RECORD | change))


def test_the_checker_source_is_unchanged_because_it_is_part_of_every_program_digest():
    source = Path(evalplus_check.__file__).read_bytes()
    assert hashlib.sha256(source).hexdigest() == "b1bf8734fce0bd316daa32d1bd8a7378fbc52ada53c2cdbc90421a8da64e6078"


def test_the_error_for_an_unknown_version_names_the_supported_ones():
    with pytest.raises(InputError, match=r"unknown version 'v9' of mbpp\+; supported: v0\.2\.0, v0\.1\.0"):
        load_benchmark("mbpp+", version="v9")


# Comparison


def holds(value, expected, *, tolerance=0.0, benchmark="mbpp", entry_point="f", arguments=()):
    return evalplus_check.Comparison(benchmark, entry_point, tolerance).holds(arguments, value, expected)


@pytest.mark.parametrize(
    ("value", "expected", "tolerance", "same"),
    [
        (1, 1.0, 0, True),
        (1, 2, 0, False),
        (True, 1, 0, True),
        ((1, 2), [1, 2], 0, False),
        (1.0 + 1e-7, 1.0, 0, True),  # floats are always compared with a tolerance
        (1.0 + 1e-5, 1.0, 0, False),
        (1.0 + 1e-5, 1.0, 1e-4, True),
        (1, 1.0 + 1e-9, 0, False),  # not equal, and of another type
        ([1.0 + 1e-7, 2.0], [1.0, 2.0], 0, True),
        ([1.0 + 1e-7], [1.0, 2.0], 0, False),
        ((1.0 + 1e-7,), [1.0], 0, False),
        ([1.0, 2 + 1e-7], [1.0, 2], 0, False),  # not all floats: exact
        ([], [], 0, True),
        ([1e-9], [], 1e-4, False),
        ("a", "b", 1e-4, False),
        ({"a": 1.0 + 1e-9}, {"a": 1.0}, 1e-4, False),
        (math.inf, math.inf, 0, True),
        (1e308, math.inf, 0, False),
        (math.nan, math.nan, 0, False),
        (1e16 * (1 + 1e-8), 1e16, 0, True),  # the tolerance is relative too
        (1 + 1e-9j, 1 + 0j, 1e-4, True),
        (None, 1.0, 0, False),
    ],
)
def test_values_are_compared_as_in_evalplus(value, expected, tolerance, same):
    assert holds(value, expected, tolerance=tolerance) is same


def test_the_tolerance_of_a_float_result_also_applies_to_later_inputs():
    comparison = evalplus_check.Comparison("mbpp", "f", 0)
    assert not comparison.holds((), [1, 2.0 + 1e-8], [1, 2.0])
    assert comparison.holds((), 2.0, 2.0)
    assert comparison.holds((), [1, 2.0 + 1e-8], [1, 2.0])


@pytest.mark.parametrize(
    ("entry_point", "arguments", "value", "expected", "same"),
    [
        ("similar_elements", (), [2, 1, 1], (1, 2), True),
        ("similar_elements", (), [1], (1, 2), False),
        ("are_equivalent", (), "anything", True, True),
        ("sum_div", (), 0, 7, True),
        ("sum_div", (), 1, 7, False),
        ("surface_Area", (3, 4), 35, 33, True),  # the height taken as the distance to the apex
        ("surface_Area", (3, 4), 34, 33, False),
        ("digit_distance_nums", (1, 20), 3, 1, True),  # padded with zeros
        ("digit_distance_nums", (1, 20), 2, 1, False),
        ("check_str", (), object(), True, True),
        ("check_str", (), None, True, False),
        ("check_str", (), False, True, False),
        ("check_str", (), None, False, True),
    ],
)
def test_some_problems_of_mbpp_have_their_own_oracle(entry_point, arguments, value, expected, same):
    assert holds(value, expected, entry_point=entry_point, arguments=arguments) is same


def test_a_root_of_a_polynomial_is_checked_by_its_value_there():
    near = {"tolerance": 1e-4, "benchmark": "humaneval", "entry_point": "find_zero", "arguments": ([-2.0, 1.0],)}
    assert holds(2.00005, 1.0, **near) and not holds(2.001, 2.0, **near)
    assert not holds(2.00005, 1.0, **near | {"benchmark": "mbpp"})


@pytest.mark.parametrize(
    ("number", "arguments", "typed"),
    [
        (2, [[1], [2]], [(1,), (2,)]),
        (63, [[[1, 2], [3]]], [[(1, 2), (3,)]]),
        (75, [[[1, 2]], 3], [[(1, 2)], 3]),
        (106, [[1], [2]], [[1], (2,)]),
        (115, [[[1, 1], [], {}]], [[{1}, {}, {}]]),
        (124, ["1", "2j"], [1.0, 2j]),
        (250, [[1, 2], 1], [(1, 2), 1]),
        (259, [[[1], [2]]], [((1,), (2,))]),
        (278, [[1, [2, 3]]], [(1, (2, 3))]),
        (307, [[1], 2, 3], [(1,), 2, 3]),
        (722, [{"a": [1, 2]}, 3, 4], [{"a": (1, 2)}, 3, 4]),
        (252, ["1+2j"], [1 + 2j]),
        (580, [[1, [2, [3]]]], ((1, (2, (3,))),)),
        (3, [[1]], [[1]]),
    ],
)
def test_inputs_get_the_types_that_json_lacks(number, arguments, typed):
    assert evalplus_check.typed(number, arguments) == typed
    assert str(evalplus_check.typed(number, arguments)) == str(typed)


# The published files


@functools.cache
def published(name, file):
    return load_benchmark(name, shared(file))


def test_humaneval_plus_has_164_problems_and_a_patched_prompt():
    problems = published("humaneval+", HUMANEVAL_PLUS).problems
    assert [problem.task_id for problem in problems] == [f"HumanEval/{i}" for i in range(164)]
    assert problems[115].prompt.startswith("import math\n")
    assert all(problem.sanitized_alone and problem.follows_prompt for problem in problems)


def test_mbpp_plus_has_378_problems_with_a_question_and_one_assert():
    benchmark = published("mbpp+", MBPP_PLUS)
    assert len(benchmark.problems) == 378
    assert all(problem.question and len(problem.examples) == 1 for problem in benchmark.problems)
    first = get_protocol("wizardcoder-mbppplus").prompt(benchmark.problems[0])
    assert (
        "### Instruction:\nWrite a function to find the shared elements from the given two lists. "
        "Your code should satisfy the following assertion:\n```python\n"
        "assert set(similar_elements((3, 4, 5, 6),(5, 7, 4, 10))) == set((4, 5))\n```\n\n### Response:"
    ) in first


@pytest.mark.parametrize(("name", "file"), [("humaneval+", HUMANEVAL_PLUS), ("mbpp+", MBPP_PLUS)])
def test_references_pass_and_functions_without_a_result_fail(name, file):
    for problem in published(name, file).problems[::40]:
        run(problem, problem.prompt + problem.canonical_solution)
        with pytest.raises((AssertionError, TypeError)):
            run(problem, f"def {problem.entry_point}(*args):\n    return ...\n")
