"""MBPP, full and sanitized: a program is code + test_setup_code (or test_imports) + asserts.

Source: google-research/google-research, mbpp/mbpp.jsonl and mbpp/sanitized-mbpp.json (CC-BY-4.0); the
splits by task id are those of its README. The prompt and stop strings for base models are those of
bigcode-evaluation-harness, bigcode_eval/tasks/mbpp.py.
"""

import ast
import builtins
import functools
from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.problem_files import read_problem_file
from wizardcoder_jax.benchmarks.problem_sources import find_problem_file
from wizardcoder_jax.benchmarks.record_fields import require_field
from wizardcoder_jax.core.errors import InputError

SPLITS = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}
STOPS = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")
TIMEOUT_S = 5.0
# The asserts of this task are long; WizardCoder's prompt shows only the signature of the function.
_LONG_EXAMPLES = {493: "calculate_polygons(startx, starty, endx, endy, radius)"}
_HUB = "hf://datasets/google-research-datasets/mbpp/full/test-00000-of-00001.parquet"
_HUB_SANITIZED = "hf://datasets/google-research-datasets/mbpp/sanitized/test-00000-of-00001.parquet"


def locate() -> tuple[str, str]:
    """Return the path of the full MBPP and a label that names its source; the hub's file contains only the test split."""
    return find_problem_file("mbpp", ["mbpp/mbpp.jsonl"], _HUB)


def locate_sanitized() -> tuple[str, str]:
    """Return the path of the sanitized MBPP and a label that names its source; the hub's file has only the test split."""
    return find_problem_file("mbpp-sanitized", ["mbpp/sanitized-mbpp.json"], _HUB_SANITIZED)


def read_problems(path: str, split: str) -> tuple[Problem, ...]:
    """Read the problems of one split ("all" reads every split) from a full or sanitized MBPP file, in file order.

    Raises:
        InputError: the file is missing or malformed, or contains no problem of the split; the message names file and line.
    """
    ids = range(10**9) if split == "all" else SPLITS[split]
    return read_problem_file(path, functools.partial(_parse_problem, ids), f"problem of the split {split!r}")


def _parse_problem(ids: range, location: str, record: dict[str, Any]) -> Problem | None:
    number = require_field(location, record, "task_id", int)
    if number not in ids:
        return None
    question = require_field(location, record, "text" if "text" in record else "prompt", str)
    code, tests = require_field(location, record, "code", str), _read_strings(location, record, "test_list")
    setup = "\n".join([*_read_strings(location, record, "test_imports"), record.get("test_setup_code") or ""])
    entry_point, helpers = _find_tested_names(location, setup, tests)
    shown = tuple(tests)
    return Problem(
        task_id=f"Mbpp/{number}",
        prompt='"""\n' + "\n".join([question, *shown]) + '\n"""\n',
        entry_point=entry_point,
        canonical_solution=code,
        test="\n" + "\n".join([setup, *tests]) + "\n",
        follows_prompt=False,
        helpers=helpers or (),
        isolated=helpers is not None,
        question=question,
        examples=(_LONG_EXAMPLES[number],) if number in _LONG_EXAMPLES else shown,
        stop_strings=STOPS,
    )


def _read_strings(location: str, record: dict[str, Any], key: str) -> list[str]:
    value = record.get(key)
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise InputError(f'{location}: "{key}" must be a list of strings')
    return value


def _find_tested_names(location: str, setup: str, tests: Sequence[str]) -> tuple[str | None, tuple[str, ...] | None]:
    """Return the name of the tested function, and the names of the candidate's other functions that the tests call.

    The second result is None if the tests use more of the candidate than its functions: tasks 367, 601 and 927 create objects
    of a class that the candidate defines, and 596 uses a module that the candidate imports.
    """
    try:
        asserts, tree = ast.parse("\n".join(tests)), ast.parse("\n".join([setup, *tests]))
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{location}: the tests are not valid Python: {error}") from error
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    free_names = {node.id for node in names if not hasattr(builtins, node.id)} - bound
    # MBPP/126 tests a function named `sum`: if the tests use only builtin names, the first function called is the entry point.
    entry_point = next((name for name in _called_names(asserts) if name in free_names or not free_names), None)
    helpers = free_names - {entry_point}
    return entry_point, tuple(sorted(helpers)) if entry_point and helpers <= set(_called_names(tree)) else None


def _called_names(tree: ast.AST) -> list[str]:
    """Return the names of the functions (not methods) that the code calls, outer calls first."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [function.id for function in calls if isinstance(function, ast.Name)]
