import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from wizardcoder_jax import evolve
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "demo"

# Run every (code, tests) pair of a JSON list on stdin in a fresh namespace, and print failures.
RUNNER = """
import json, sys
for i, (code, tests) in enumerate(json.load(sys.stdin)):
    namespace = {"__name__": "answer"}
    try:
        exec(compile(code, f"answer {i}", "exec"), namespace)
        exec(compile(tests, f"tests {i}", "exec"), namespace)
    except BaseException as error:
        print(f"{i}: {type(error).__name__}: {error}: {code[:200]!r}")
print("ran", i + 1)
"""


@pytest.fixture(scope="module")
def record_round():
    spec = importlib.util.spec_from_file_location("record_round", ROOT / "scripts" / "record_round.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def evolved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    replay = ["--teacher.kind", "replay", "--teacher.replay-file", str(DEMO / "teacher.jsonl")]
    evolve.main(["--seeds", str(DEMO / "seeds.jsonl"), "--output-dir", str(folder), "--rounds", "1", *replay])
    assert [entry for _, entry in read_records(folder / "rejected.jsonl")] == []
    return [entry for _, entry in read_records(folder / "evolved.jsonl")]


def test_the_demo_has_at_least_120_seeds_and_its_round_keeps_all(evolved):
    rounds = [entry["round"] for entry in evolved]
    assert rounds.count(0) >= 120
    assert rounds.count(1) == rounds.count(0)


def test_every_shipped_answer_passes_its_tests(evolved, record_round):
    tests = {entry["instruction"]: entry["tests"] for _, entry in read_records(DEMO / "tests.jsonl")}
    assert all("assert" in text for text in tests.values())
    pairs = [(record_round.program(entry["output"]), tests[entry["instruction"]]) for entry in evolved]
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUNNER], input=json.dumps(pairs), capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == f"ran {len(evolved)}\n"


def test_the_demo_data_has_no_problem_of_mini_or_mini_dev(evolved, record_round):
    problems = [entry for path in record_round.PROBLEMS_DIR.glob("mini*.jsonl") for _, entry in read_records(path)]
    assert len(problems) >= 80
    entry_points = {problem["entry_point"] for problem in problems}
    statements = {record_round.statement(problem["prompt"]) for problem in problems}
    contamination = ContaminationDetector(str(record_round.PROBLEMS_DIR))
    for entry in evolved:
        assert not entry_points & record_round.defined_names(record_round.program(entry["output"]))
        assert not any(statement in record_round.statement(entry["instruction"]) for statement in statements)
        assert contamination.find_evidence(entry["instruction"]) is None
        assert contamination.find_evidence(entry["output"]) is None


def test_a_wrong_answer_is_detected(record_round):
    assert record_round.failure("```python\nx = 1\n```", "assert x == 1") is None
    assert "AssertionError" in record_round.failure("```python\nx = 1\n```", "assert x == 2")
    assert "SyntaxError" in record_round.failure("```python\nx = \n```", "assert x == 2")
    assert record_round.failure("x = 1", "assert x == 1") == "no ```python block"
