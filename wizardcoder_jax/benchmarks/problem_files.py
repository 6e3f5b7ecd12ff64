"""Reads a file of problems, whatever their form."""

from collections.abc import Callable
from typing import Any

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.record_files import read_records


def read_problem_file(
    path: str, make: Callable[[str, dict[str, Any]], Problem | None], what: str = "problem"
) -> tuple[Problem, ...]:
    """The problems of a file (JSONL, a JSON array or parquet, plain or .gz), in file order.

    Args:
        path: the file.
        make: from a record and its place ("FILE:LINE") to a problem; None for one that is not wanted.
        what: what is looked for, in the words of a complaint.

    Raises:
        InputError: the file is missing, malformed or empty, or names a task twice (file and line named).
    """
    problems: dict[str, Problem] = {}
    for place, record in read_records(path):
        problem = make(place, record)
        if problem is None:
            continue
        if problem.task_id in problems:
            raise InputError(f"{place}: the task {problem.task_id} occurs twice")
        problems[problem.task_id] = problem
    if not problems:
        raise InputError(f"{path} holds no {what}")
    return tuple(problems.values())
