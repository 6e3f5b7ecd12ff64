import functools
import json

import pytest

from tests.helpers.shared_data import shared
from wizardcoder_jax.benchmarks import mbpp
from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.program_assembly import reference_program, sample_program
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.errors import InputError

pytestmark = pytest.mark.quick

RECORD = {
    "text": "Add one.",
    "code": "def f(x):\r\n\treturn x + 1",
    "task_id": 11,
    "test_setup_code": "",
    "test_list": ["assert f(1) == 2", "assert f(2) == 3"],
    "challenge_test_list": [],
}


def read(tmp_path, *records, split="test"):
    path = tmp_path / "mbpp.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return mbpp.read_problems(str(path), split)


@functools.cache
def published(split):
    return load_benchmark("mbpp", shared("mbpp/mbpp.jsonl"), split=split)


def test_a_program_is_code_then_setup_then_asserts(tmp_path):
    (problem,) = read(tmp_path, RECORD | {"test_setup_code": "root = Node(1)", "test_list": ["assert f(root) == 2"]})
    assert problem.test == "\nroot = Node(1)\nassert f(root) == 2\n"
    completion = Sample(task_id="Mbpp/11", sample_index=0, completion="class Node: ...")
    assert sample_program(problem, completion, get_protocol("wizardcoder-mbpp")).candidate == "class Node: ..."
    assert (problem.entry_point, problem.helpers, problem.isolated) == ("f", ("Node",), True)


@pytest.mark.parametrize(
    ("tests", "setup", "entry_point", "helpers", "isolated"),
    [
        (["assert f(1) == 2"], "", "f", (), True),
        (["assert set(f([1])) == {1}"], "", "f", (), True),
        (["assert math.isclose(f(1), 2)"], "import math", "f", (), True),
        (["assert sum(1, 2) == 3"], "", "sum", (), True),
        (["assert f([Pair(1, 2)]) == 3"], "", "f", ("Pair",), True),
        (["assert f(1) == sys.getsizeof(1)"], "", "f", (), False),
        (["assert [x for x in f(1)] == [2]"], "", "f", (), True),
    ],
)
def test_names_that_the_tests_call_are_found(tmp_path, tests, setup, entry_point, helpers, isolated):
    (problem,) = read(tmp_path, RECORD | {"test_list": tests, "test_setup_code": setup})
    assert (problem.entry_point, problem.helpers, problem.isolated) == (entry_point, helpers, isolated)


def test_the_prompt_shows_only_the_signature_if_the_examples_are_too_long(tmp_path):
    (problem,) = read(tmp_path, RECORD | {"task_id": 493})
    asked = get_protocol("wizardcoder-mbpp").prompt(problem)
    assert "Test examples:\ncalculate_polygons(startx, starty, endx, endy, radius)\n\n### Response:" in asked
    assert "assert" not in asked


def test_a_base_model_completes_a_docstring_of_question_and_asserts(tmp_path):
    (problem,) = read(tmp_path, RECORD)
    assert problem.prompt == '"""\nAdd one.\nassert f(1) == 2\nassert f(2) == 3\n"""\n'
    raw = "\n# fine\ndef g(): pass\ndef f(x):\n    return x\nassert f(1)"  # "\n#" and "\ndef" are not stop strings of MBPP
    assert get_protocol("completion").cleaner(raw, problem) == raw.removesuffix("\nassert f(1)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_id": "11"}, '"task_id" must be of type int'),
        ({"test_list": "assert"}, '"test_list" must be a list of strings'),
        ({"test_list": ["assert ("]}, "the tests are not valid Python"),
        ({"code": None}, '"code" must be of type str'),
    ],
)
def test_a_bad_record_is_reported_with_its_line(tmp_path, change, message):
    with pytest.raises(InputError, match=rf"mbpp\.jsonl:1: {message}"):
        read(tmp_path, RECORD | change)


def test_a_file_without_the_split_is_an_error(tmp_path):
    with pytest.raises(InputError, match="contains no problem of the split 'train'"):
        read(tmp_path, RECORD, split="train")


@pytest.mark.parametrize(
    ("split", "first", "count"),
    [(None, 11, 500), ("prompt", 1, 10), ("validation", 511, 90), ("train", 601, 374), ("all", 1, 974)],
)
def test_the_splits_of_mbpp_are_by_task_id(split, first, count):
    problems = published(split).problems
    assert [problem.task_id for problem in problems] == [f"Mbpp/{i}" for i in range(first, first + count)]


def test_the_sanitized_file_has_427_problems_and_257_in_the_test_split():
    path = shared("mbpp/sanitized-mbpp.json")
    assert len(load_benchmark("mbpp-sanitized", path).problems) == 427
    assert len(load_benchmark("mbpp-sanitized", path, split="test").problems) == 257


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_references_pass_with_the_test_in_a_separate_namespace():
    left_out = []
    for problem in published("all").problems[::7]:
        namespace = {}
        exec(problem.canonical_solution, namespace)
        if not problem.isolated:
            left_out.append(problem.task_id)
            continue
        exec(problem.test, {name: namespace[name] for name in (problem.entry_point, *problem.helpers)})
    assert len(left_out) < 2


@pytest.mark.parametrize("number", [367, 601, 927, 126])
def test_references_that_define_more_than_a_function_pass(number):
    problems = {p.task_id: p for p in published("all").problems}
    program = reference_program(problems[f"Mbpp/{number}"])
    exec(program.candidate + program.test, {})


def test_only_mbpp_has_splits():
    with pytest.raises(InputError, match="mini has no splits"):
        load_benchmark("mini", split="test")
