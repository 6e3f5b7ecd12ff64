import json

import pytest

from tests.helpers.shared_data import shared
from wizardcoder_jax.benchmarks import multipl_e
from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.program_assembly import reference_program, sample_program
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.errors import InputError

pytestmark = pytest.mark.quick

RECORD = {
    "name": "HumanEval_0_f",
    "language": "js",
    "prompt": "function f(){\n",
    "tests": "test();",
    "stop_tokens": ["\nfunction ", "\n//"],
}


def read(tmp_path, record, language="js"):
    (tmp_path / "m.jsonl").write_text(json.dumps(record) + "\n")
    return multipl_e.read_problems(str(tmp_path / "m.jsonl"), language)[0]


def test_a_program_is_prompt_completion_and_tests(tmp_path):
    problem = read(tmp_path, RECORD)
    sample = Sample(task_id=problem.task_id, sample_index=0, completion="  return 1;\n}\nfunction g(){}")
    program = sample_program(problem, sample, get_protocol("completion"))
    assert program.candidate + program.test == "function f(){\n  return 1;\n}\ntest();"
    assert (program.language, program.entry_point) == ("js", None)
    assert reference_program(problem) is None


def test_the_stop_strings_are_those_of_the_problem(tmp_path):
    assert get_protocol("completion").stops(read(tmp_path, RECORD)) == ("\nfunction ", "\n//")


def test_the_language_of_a_file_is_checked(tmp_path):
    with pytest.raises(InputError, match="the problem's language is 'js', but the benchmark is multipl-e-java"):
        read(tmp_path, RECORD, "java")
    assert read(tmp_path, RECORD | {"language": "go_test.go"}, "go").language == "go"
    assert read(tmp_path, RECORD | {"language": "rs"}, "rust").language == "rust"


@pytest.mark.parametrize("stops", [None, "\n}", [1]])
def test_stop_strings_must_be_a_list_of_strings(tmp_path, stops):
    with pytest.raises(InputError, match=r'm\.jsonl:1: "stop_tokens" must be a list of strings'):
        read(tmp_path, RECORD | {"stop_tokens": stops})


@pytest.mark.parametrize(("language", "count"), [("js", 161), ("java", 158), ("cpp", 161), ("sh", 158)])
def test_the_published_files_are_read(language, count):
    problems = load_benchmark(f"multipl-e-{language}", shared(f"multipl-e/humaneval-{language}.jsonl")).problems
    assert len(problems) == count and all(p.language == language and p.stop_strings for p in problems)
