"""MultiPL-E: HumanEval in other programming languages. A program is prompt + completion + tests.

Source: nuprl/MultiPL-E on the Hugging Face hub (problem files, with stop strings) and its evaluation/src (how each language's
toolchain runs a program). The problem files of deepseek-ai/DeepSeek-Coder @2f9fd85 can be read as well.
"""

import functools
from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.problem_files import read_problem_file
from wizardcoder_jax.benchmarks.problem_sources import find_problem_file
from wizardcoder_jax.benchmarks.record_fields import require_field
from wizardcoder_jax.core.errors import InputError

LANGUAGES = ("js", "java", "cpp", "sh", "php", "rust", "rs", "go", "r")
TIMEOUT_S = 15.0  # CPU seconds, including compilation
_HUB_NAMES = {"rust": "rs"}  # our language name -> MultiPL-E's name, which is accepted too


def locate(language: str) -> tuple[str, str]:
    """Return the path of a language's problem file and a label that names its source."""
    short = _HUB_NAMES.get(language, language)
    names = [f"multipl-e/humaneval-{name}.jsonl" for name in dict.fromkeys((language, short))]
    address = f"hf://datasets/nuprl/MultiPL-E/humaneval-{short}/test-00000-of-00001.parquet"
    return find_problem_file(f"multipl-e-{language}", names, address)


def read_problems(path: str, language: str) -> tuple[Problem, ...]:
    """Read the problems of a language's file.

    Raises:
        InputError: the file is missing, malformed or empty; the message names file and line.
    """
    return read_problem_file(path, functools.partial(_parse_problem, language))


def _parse_problem(language: str, location: str, record: dict[str, Any]) -> Problem:
    recorded = str(record.get("language", language))
    if recorded not in (language, _HUB_NAMES.get(language), f"{language}_test.go"):
        raise InputError(f"{location}: the problem's language is {recorded!r}, but the benchmark is multipl-e-{language}")
    stops = record.get("stop_tokens")
    if not isinstance(stops, Sequence) or isinstance(stops, str) or not all(isinstance(stop, str) for stop in stops):
        raise InputError(f'{location}: "stop_tokens" must be a list of strings')
    return Problem(
        task_id=require_field(location, record, "name", str),
        prompt=require_field(location, record, "prompt", str),
        test="\n" + require_field(location, record, "tests", str),
        isolated=False,
        stop_strings=tuple(stops),
        language=language,
    )
