"""MultiPL-E: HumanEval in other languages; a program is prompt + completion + tests, compiled and run by the language's tools.

Source: nuprl/MultiPL-E (the prompts' own stop strings; evaluation/src for the tools); prompts as on the hub, or as carried by
deepseek-ai/DeepSeek-Coder @2f9fd85.
"""

import functools
from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.problem_files import read_problem_file
from wizardcoder_jax.benchmarks.problem_sources import find
from wizardcoder_jax.benchmarks.record_fields import required
from wizardcoder_jax.core.errors import InputError

LANGUAGES = ("js", "java", "cpp", "sh", "php", "rust", "rs", "go", "r")
TIMEOUT_S = 15.0  # CPU seconds, compiling included
_HUB_NAMES = {"rust": "rs"}  # MultiPL-E's own name is known too


def locate(language: str) -> tuple[str, str]:
    """(path, label) of the problem file of a language."""
    short = _HUB_NAMES.get(language, language)
    names = [f"multipl-e/humaneval-{name}.jsonl" for name in dict.fromkeys((language, short))]
    address = f"hf://datasets/nuprl/MultiPL-E/humaneval-{short}/test-00000-of-00001.parquet"
    return find(f"multipl-e-{language}", names, address)


def read_problems(path: str, language: str) -> tuple[Problem, ...]:
    """The problems of a language's file.

    Raises:
        InputError: the file is missing, malformed or empty (file and line named).
    """
    return read_problem_file(path, functools.partial(_problem, language))


def _problem(language: str, place: str, record: dict[str, Any]) -> Problem:
    written = str(record.get("language", language))
    if written not in (language, _HUB_NAMES.get(language), f"{language}_test.go"):
        raise InputError(f"{place}: a problem in {written!r}, but the benchmark is multipl-e-{language}")
    stops = record.get("stop_tokens")
    if not isinstance(stops, Sequence) or isinstance(stops, str) or not all(isinstance(stop, str) for stop in stops):
        raise InputError(f'{place}: "stop_tokens" must be a list of texts')
    return Problem(
        task_id=required(place, record, "name", str),
        prompt=required(place, record, "prompt", str),
        test="\n" + required(place, record, "tests", str),
        isolated=False,
        stop_strings=tuple(stops),
        language=language,
    )
