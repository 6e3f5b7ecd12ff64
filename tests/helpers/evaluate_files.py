"""Problems and samples for tests of the evaluate command, and the arguments that score them."""

import json
import os
import sys

import pytest

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.sandbox.sandbox import Sandbox

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def skip_without_sandbox():
    try:
        Sandbox.open().stop()
    except InputError as error:
        pytest.skip(str(error))


def problem(i, test="assert candidate() == 1"):
    return {
        "task_id": f"T/{i}",
        "prompt": f"def f():  # {i}\n",
        "entry_point": "f",
        "canonical_solution": "    return 1\n",
        "test": f"def check(candidate):\n    {test}\n",
    }


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def write_files(tmp_path):
    """Write three problems with two samples each: T/0 passes twice, T/1 once, T/2 never."""
    write_lines(tmp_path / "problems.jsonl", [problem(i) for i in range(3)])
    bodies = [["return 1", "return 0 + 1"], ["return 1", "return 2"], ["return None.x", "return []"]]
    samples = [
        {"task_id": f"T/{i}", "sample_index": j, "completion": f"    {body}"}
        for i, own in enumerate(bodies)
        for j, body in enumerate(own)
    ]
    write_lines(tmp_path / "samples.jsonl", samples)
    return tmp_path


def arguments(folder, *more):
    named = {"benchmark-file": "problems.jsonl", "samples": "samples.jsonl", "output": "results.json"}
    paths = [part for flag, name in named.items() for part in (f"--{flag}", str(folder / name))]
    return ["--benchmark", "humaneval", *paths, "--timeout-s", "10", "--num-workers", "2", *more]


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def command(*args):
    return [sys.executable, "-m", "wizardcoder_jax.evaluate", *args]
