"""Reads the problem file of any benchmark."""

from collections.abc import Callable
from typing import Any

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.record_files import read_records


def read_problem_file(
    path: str, parse: Callable[[str, dict[str, Any]], Problem | None], what: str = "problem"
) -> tuple[Problem, ...]:
    """Read the problems of a file (JSONL, a JSON array or parquet, plain or .gz), in file order.

    Args:
        path: the file.
        parse: converts (location "FILE:LINE", record) to a problem, or to None to skip the record.
        what: noun for the error message "FILE contains no ...".

    Raises:
        InputError: the file is missing, malformed or empty, or contains a task twice; the message names file and line.
    """
    problems: dict[str, Problem] = {}
    for location, record in read_records(path):
        problem = parse(location, record)
        if problem is None:
            continue
        if problem.task_id in problems:
            raise InputError(f"{location}: the task {problem.task_id} occurs twice; remove one")
        problems[problem.task_id] = problem
    if not problems:
        raise InputError(f"{path} contains no {what}")
    return tuple(problems.values())
