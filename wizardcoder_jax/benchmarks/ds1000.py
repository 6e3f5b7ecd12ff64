"""DS-1000: data science problems; each is tested by its own code_context, which receives the solution as a string.

Source: xlang-ai/DS-1000 (CC-BY-SA-4.0), simplified format. A program is code_context + test_execution(code), followed by
test_string(code) if that is defined, as in DS-1000's test_ds1000.py. The installed libraries decide which references pass;
the reference environment is Python 3.10 with numpy 1.26.4, pandas 1.5.3, scipy 1.12, scikit-learn 1.4.0, matplotlib 3.8.4
(scripts/ds1000_environment.sh builds it).
"""

from typing import Any

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.problem_files import read_problem_file
from wizardcoder_jax.benchmarks.problem_sources import find_problem_file
from wizardcoder_jax.benchmarks.record_fields import require_field
from wizardcoder_jax.core.errors import InputError

STOPS = ("</code>", "# SOLUTION END", "\nEND SOLUTION", "### END SOLUTION")
TIMEOUT_S = 120.0  # CPU seconds per program; from DS-1000's execution.py
_FILES = ("ds1000/ds1000.jsonl.gz", "ds1000/ds1000.jsonl", "ds1000/ds1000-even.jsonl.gz")
_HUB = "hf://datasets/xlangai/DS-1000/test.jsonl"


def locate() -> tuple[str, str]:
    """Return the path of the problem file and a label that names its source."""
    return find_problem_file("ds1000", _FILES, _HUB)


def read_problems(path: str) -> tuple[Problem, ...]:
    """Read the problems of a file in DS-1000's simplified format.

    Raises:
        InputError: the file is missing, malformed or empty; the message names file and line.
    """
    return read_problem_file(path, _parse_problem)


def _parse_problem(location: str, record: dict[str, Any]) -> Problem:
    metadata = record.get("metadata")
    if not isinstance(metadata, dict):
        raise InputError(f'{location}: "metadata" must be an object')
    context = require_field(location, record, "code_context", str)
    calls = ["test_execution(code)", *(["test_string(code)"] if "test_string(" in context else [])]
    return Problem(
        task_id=f"DS-1000/{require_field(location, metadata, 'problem_id', int)}",
        prompt=require_field(location, record, "prompt", str),
        canonical_solution=require_field(location, record, "reference_code", str),
        test="\n".join([context, *calls]) + "\n",
        follows_prompt=False,
        isolated=False,  # the tests inspect the candidate's arrays, data frames and figures
        text_name="code",
        stop_strings=STOPS,
        library=require_field(location, metadata, "library", str),
    )
