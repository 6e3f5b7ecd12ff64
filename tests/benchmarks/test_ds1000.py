import json

import pytest

from tests.helpers.shared_data import shared
from wizardcoder_jax.benchmarks import ds1000
from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.program_assembly import reference_program, sample_program
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.benchmarks.samples_file import Sample, TaskIds
from wizardcoder_jax.core.errors import InputError

pytestmark = pytest.mark.quick

CONTEXT = 'context = """\n[insert]\nresult = y\n"""\n\n\ndef test_execution(solution):\n    namespace = {"x": 1}\n'
CONTEXT += '    exec(context.replace("[insert]", solution), namespace)\n    assert namespace["result"] == 2\n'
STRING = '\n\ndef test_string(solution):\n    assert "for" not in solution\n'
RECORD = {
    "prompt": "Problem:\nAdd one to x.\nBEGIN SOLUTION\n<code>\n",
    "reference_code": "y = x + 1",
    "metadata": {"problem_id": 7, "library": "Numpy"},
    "code_context": CONTEXT,
}


def read(tmp_path, record):
    (tmp_path / "ds.jsonl").write_text(json.dumps(record) + "\n")
    return ds1000.read_problems(str(tmp_path / "ds.jsonl"))[0]


def run(problem, completion, protocol="completion"):
    sample = Sample(task_id=problem.task_id, sample_index=0, completion=completion)
    program = sample_program(problem, sample, get_protocol(protocol))
    exec(program.candidate + program.test, {})


def test_the_context_runs_the_solution_as_a_string(tmp_path):
    problem = read(tmp_path, RECORD)
    program = reference_program(problem)
    exec(program.candidate + program.test, {})
    assert (program.entry_point, problem.task_id, problem.library) == (None, "DS-1000/7", "Numpy")
    run(problem, "y = 2\n</code>\nEND SOLUTION and talk (")
    with pytest.raises(AssertionError):
        run(problem, "y = 3")
    with pytest.raises(SyntaxError):
        run(problem, "y = '''")
    run(
        problem, "def g(x):\n    return x + 1\n\n# fine\nif True:\n    y = g(x)\nprint(y)"
    )  # contains stop strings of HumanEval, which do not apply


def test_the_text_of_the_solution_is_tested_if_the_context_tests_it(tmp_path):
    problem = read(tmp_path, RECORD | {"code_context": CONTEXT + STRING})
    run(problem, "y = 2")
    with pytest.raises(AssertionError):
        run(problem, "for y in [2]: pass")


def test_a_problem_can_be_given_by_its_number(tmp_path):
    assert TaskIds([read(tmp_path, RECORD)]).resolve("p", 7) == "DS-1000/7"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"metadata": "{}"}, '"metadata" must be an object'), ({"metadata": {"problem_id": 1}}, 'missing field "library"')],
)
def test_a_bad_record_is_reported_with_its_line(tmp_path, change, message):
    with pytest.raises(InputError, match=rf"ds\.jsonl:1: {message}"):
        read(tmp_path, RECORD | change)


def test_problems_of_every_library_are_read_from_the_published_file():
    benchmark = load_benchmark("ds1000", shared("ds1000/ds1000-even.jsonl.gz"))
    assert {p.library for p in benchmark.problems} == {
        *("Matplotlib", "Numpy", "Pandas", "Pytorch", "Scipy", "Sklearn", "Tensorflow"),
    }
    assert not benchmark.runs_anywhere and benchmark.timeout_s == 120
    tested = [p for p in benchmark.problems if "test_string(code)" in p.test]
    assert len(tested) == 82 and all("def test_string" in p.test for p in tested)
