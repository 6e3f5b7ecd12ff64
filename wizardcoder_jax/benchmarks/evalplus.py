"""HumanEval+ and MBPP+, read from evalplus' problem files. A sample must pass on the base inputs and the plus inputs.

Source: evalplus 0.3.1 (Apache-2.0); releases humanevalplus_release v0.1.10 and mbppplus_release v0.2.0 and v0.1.0.
"""

import functools
import json
import os
import re
from pathlib import Path
from typing import Any

from wizardcoder_jax.benchmarks import evalplus_check, mbpp
from wizardcoder_jax.benchmarks.problem import HUMANEVAL_STOPS, Problem
from wizardcoder_jax.benchmarks.problem_files import read_problem_file
from wizardcoder_jax.benchmarks.problem_sources import find_problem_file
from wizardcoder_jax.benchmarks.record_fields import require_field
from wizardcoder_jax.core.errors import InputError

VERSIONS = {"humaneval+": ("v0.1.10",), "mbpp+": ("v0.2.0", "v0.1.0")}  # the first version of each is the default
TIMEOUT_S = 120.0  # CPU seconds per program (candidate and reference); evalplus_check.py also limits each call
_TOO_LARGE = {"Mbpp/255"}  # tasks with results too large to send between processes (128 million items)
_FILES = {"humaneval+": "HumanEvalPlus", "mbpp+": "MbppPlus"}


def locate(name: str, version: str | None) -> tuple[str, str]:
    """Return the path of the problem file and a label that names its source.

    The file is searched for in evalplus' own cache, in WIZARDCODER_DATA and in evalplus' releases on GitHub.

    Raises:
        InputError: the version is unknown, or its problem file cannot be found.
    """
    version = version or VERSIONS[name][0]
    if version not in VERSIONS[name]:
        raise InputError(f"unknown version {version!r} of {name}; supported: {', '.join(VERSIONS[name])}")
    stem = _FILES[name]
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "evalplus", f"{stem}-{version}.jsonl")
    if cached.is_file():
        return str(cached), cached.name
    folder = stem.lower()
    releases = f"https://github.com/evalplus/{folder}_release/releases/download"
    return find_problem_file(name, [f"{folder}/{stem}-{version}.jsonl.gz"], f"{releases}/{version}/{stem}.jsonl.gz")


def read_humaneval_plus(path: str) -> tuple[Problem, ...]:
    """Read the problems of a HumanEval+ file.

    Raises:
        InputError: the file is missing, malformed or empty; the message names file and line.
    """
    return read_problem_file(path, functools.partial(_parse_problem, "humaneval"))


def read_mbpp_plus(path: str) -> tuple[Problem, ...]:
    """Read the problems of an MBPP+ file.

    Raises:
        InputError: the file is missing, malformed or empty; the message names file and line.
    """
    return read_problem_file(path, functools.partial(_parse_problem, "mbpp"))


def _parse_problem(benchmark: str, location: str, record: dict[str, Any]) -> Problem:
    task_id, prompt, entry_point, solution = (
        require_field(location, record, key, str) for key in ("task_id", "prompt", "entry_point", "canonical_solution")
    )
    number = task_id.rpartition("/")[2]
    if not number.isdecimal() or not entry_point.isidentifier():
        raise InputError(
            f"{location}: expected a task_id such as Mbpp/2 and an identifier as entry_point, got {task_id!r}, {entry_point!r}"
        )
    question, examples = _split_prompt(prompt) if benchmark == "mbpp" else (None, ())
    return Problem(
        task_id=task_id,
        prompt=prompt,
        entry_point=entry_point,
        canonical_solution=solution,
        test=_build_test(benchmark, int(number), entry_point, prompt + solution, *_read_inputs(location, record)),
        sanitized_alone=True,
        isolated=task_id not in _TOO_LARGE,
        question=question,
        examples=examples,
        stop_strings=mbpp.STOPS if benchmark == "mbpp" else HUMANEVAL_STOPS,
    )


def _read_inputs(location: str, record: dict[str, Any]) -> tuple[float, str]:
    """Return the absolute tolerance, and the inputs as JSON: [("base", argument lists), ("plus", argument lists)]."""
    tolerance, groups = record.get("atol"), []
    if not isinstance(tolerance, int | float):
        raise InputError(f'{location}: "atol" must be a number, found {type(tolerance).__name__}')
    for label in ("base", "plus"):
        calls = record.get(f"{label}_input")
        calls = [] if calls == {} else calls  # evalplus writes {} for an empty list
        if not isinstance(calls, list) or not all(isinstance(call, list) for call in calls):
            raise InputError(f'{location}: "{label}_input" must be a list of argument lists')
        groups.append((label, calls))
    return tolerance, json.dumps(groups)


def _build_test(benchmark: str, number: int, entry_point: str, reference: str, tolerance: float, inputs: str) -> str:
    arguments = ", ".join(map(repr, (benchmark, number, entry_point, reference, tolerance, inputs)))
    return f"\n{_checker_source()}\ncheck_all({entry_point}, {arguments})\n"


@functools.cache
def _checker_source() -> str:
    """Return the source of evalplus_check.py, which is embedded in every test.

    Avoid editing evalplus_check.py: any change to its text changes the digest of every program, so that unfinished
    evaluations of HumanEval+ and MBPP+ run all programs again.
    """
    return Path(evalplus_check.__file__).read_text(encoding="utf-8")


def _split_prompt(prompt: str) -> tuple[str, tuple[str, ...]]:
    """Split an MBPP+ prompt, which is a docstring, into its question and its example assert (empty if it has none)."""
    lines = prompt.strip().removeprefix('"""').removesuffix('"""').strip().split("\n")
    first = next((i for i, line in enumerate(lines) if re.match(r"\s*assert\b", line)), len(lines))
    example = "\n".join(lines[first:])
    return "\n".join(lines[:first]), (example,) if example else ()
