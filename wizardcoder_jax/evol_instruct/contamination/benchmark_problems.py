"""Reader of the problems to decontaminate against: HumanEval, MBPP, DS-1000, MultiPL-E and benchmarks with similar fields."""

import ast
import dataclasses
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import read_text
from wizardcoder_jax.core.record_files import read_records

TEXT_FIELDS = ("prompt", "text")
SOLUTION_FIELDS = ("canonical_solution", "code", "reference_code")
TEST_FIELDS = ("test", "tests", "test_list", "challenge_test_list", "assertion")
# A record with any of these fields is training data or a model answer, not a problem.
OTHER_RECORDS = ("instruction", "messages", "completion", "output")
SUFFIXES = (".jsonl", ".json", ".parquet")
MIN_STATEMENT_WORDS = 5  # minimum number of words of an excerpt that serves as the problem statement

_DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)
_EXAMPLES = re.compile(r">>>|\bexamples?\b\s*[:\d]|\bfor example\b|\[input/output\]|\n\s*assert\b|\n\s*A:\s*\n|<code>", re.I)
_COMMENT_LINE = re.compile(r"^[ \t]*(?://+|\#(?!include|!)|/?\*+)(.*)$", re.MULTILINE)
_BOUND = re.compile(r"\bdef\s+(\w+)|\b(?:for|import|as)\s+(\w+)|\b(\w+)\s*(?::[^=\n]*)?=(?!=)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownProblem:
    """One problem of a benchmark.

    Attributes:
        benchmark: path of the benchmark file, relative to the benchmarks folder.
        task_id: identifier of the problem within the benchmark file.
        prompt: the whole prompt.
        statement: the prose of the prompt, without examples and code.
        solutions: programs that solve the problem.
        tests: programs that check a solution.
        identifiers: names defined by the solution and by the code in the prompt. A disguised copy may rename them in its code
            and in its prose.
    """

    benchmark: str
    task_id: str
    prompt: str
    statement: str
    solutions: tuple[str, ...]
    tests: tuple[str, ...]
    identifiers: frozenset[str]


def read_problems(benchmarks_dir: str) -> tuple[list[KnownProblem], list[str]]:
    """Read the problems in all files below a folder.

    Returns:
        The problems, and the paths of files without problems (training data, model settings, ...), relative to the folder.

    Raises:
        InputError: the folder does not exist, a file is malformed or mixes problems with other records, or no file contains a
            problem.
    """
    if not os.path.isdir(benchmarks_dir):
        raise InputError(f"{benchmarks_dir} is not a folder; --benchmarks-dir must be a folder of benchmark files")
    root = Path(benchmarks_dir)
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name.removesuffix(".gz").endswith(SUFFIXES))
    problems: list[KnownProblem] = []
    skipped = []
    for path in paths:
        found = list(_read_file(path, str(path.relative_to(root))))
        problems += found
        if not found:
            skipped.append(str(path.relative_to(root)))
    if not problems:
        raise InputError(
            f"{benchmarks_dir} contains no problems: no JSONL, JSON array or Parquet file has a non-empty string in the field "
            f"{' or '.join(map(repr, TEXT_FIELDS))}; pass a folder of benchmarks to --benchmarks-dir"
        )
    return problems, skipped


def _read_file(path: Path, name: str) -> Iterator[KnownProblem]:
    if path.name.removesuffix(".gz").endswith(".json") and _is_json_object(path):
        return
    for number, (location, entry) in enumerate(read_records(path)):
        if not _is_problem(entry):
            if number == 0:
                return
            raise InputError(
                f'{location}: no field "prompt" or "text", unlike earlier records; fix the record or remove the file'
            )
        yield _problem(name, location, entry)


def _is_json_object(path: Path) -> bool:
    """Return whether a .json file contains a single object, such as a model's config.json."""
    try:
        return isinstance(json.loads(read_text(path)), dict)
    except ValueError:
        return False


def _is_problem(entry: dict[str, Any]) -> bool:
    has_text = any(isinstance(entry.get(field), str) and entry[field].strip() for field in TEXT_FIELDS)
    return has_text and not any(field in entry for field in OTHER_RECORDS)


def _problem(benchmark: str, location: str, entry: dict[str, Any]) -> KnownProblem:
    prompt = next(entry[field] for field in TEXT_FIELDS if isinstance(entry.get(field), str) and entry[field].strip())
    solutions = tuple(entry[field] for field in SOLUTION_FIELDS if isinstance(entry.get(field), str))
    return KnownProblem(
        benchmark=benchmark,
        task_id=_task_id(entry, location),
        prompt=prompt,
        statement=_statement(prompt),
        solutions=solutions,
        tests=tuple(text for field in TEST_FIELDS for text in _texts(entry.get(field))),
        identifiers=frozenset().union(
            *(_bound_names(prompt, text) for text in solutions), *([] if solutions else [_signature_names(prompt)])
        ),
    )


def _task_id(entry: dict[str, Any], location: str) -> str:
    metadata = entry.get("metadata")
    if isinstance(metadata, dict) and "problem_id" in metadata:
        return f"{metadata.get('library', 'problem')}/{metadata['problem_id']}"
    return str(entry.get("task_id", entry.get("name", location.rpartition(":")[2])))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return ["\n".join(map(str, value))] if isinstance(value, list) and value else []


def _statement(prompt: str) -> str:
    """Return the prose of a prompt: its last docstring, else its comments, else all of it; examples are cut off if possible."""
    docstrings = _DOCSTRING.findall(prompt)
    comments = "\n".join(_COMMENT_LINE.findall(prompt))
    for whole in (docstrings[-1][1] if docstrings else "", comments, prompt):
        for text in (_EXAMPLES.split(whole)[0], whole):
            if len(text.split()) >= MIN_STATEMENT_WORDS:
                return text
    return prompt


def _signature_names(prompt: str) -> set[str]:
    """Return the identifiers in the function signature at the end of a prompt, in any programming language."""
    lines = [line for line in _DOCSTRING.sub("", prompt).splitlines() if "(" in line and not _COMMENT_LINE.match(line)]
    return set(re.findall(r"[^\W\d]\w*", lines[-1])) if lines and lines[-1] != prompt else set()


def _bound_names(prompt: str, solution: str) -> set[str]:
    names = set()
    for source in (prompt + solution, solution):
        try:
            with warnings.catch_warnings(action="ignore"):  # e.g. warnings about invalid escapes
                tree = ast.parse(source)
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    names.add(node.name)
                elif isinstance(node, ast.arg):
                    names.add(node.arg)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
            return names
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return {name for match in _BOUND.findall(solution) for name in match if name}
