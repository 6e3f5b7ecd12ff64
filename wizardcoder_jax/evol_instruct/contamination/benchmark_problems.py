"""Benchmark problems as found in a folder: every layout that HumanEval, MBPP, DS-1000, MultiPL-E and their kin come in."""

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
from wizardcoder_jax.core.filesystem import read_records, read_text

TEXT_FIELDS = ("prompt", "text")
SOLUTION_FIELDS = ("canonical_solution", "code", "reference_code")
TEST_FIELDS = ("test", "tests", "test_list", "challenge_test_list", "assertion")
OTHER_RECORDS = ("instruction", "messages", "completion", "output")  # fields of training data and answers, not of problems
SUFFIXES = (".jsonl", ".json", ".parquet")
MIN_STATEMENT_WORDS = 5  # a cut that leaves fewer is not made

_DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)
_EXAMPLES = re.compile(r">>>|\bexamples?\b\s*[:\d]|\bfor example\b|\[input/output\]|\n\s*assert\b|\n\s*A:\s*\n|<code>", re.I)
_COMMENT_LINE = re.compile(r"^[ \t]*(?://+|\#(?!include|!)|/?\*+)(.*)$", re.MULTILINE)
_BOUND = re.compile(r"\bdef\s+(\w+)|\b(?:for|import|as)\s+(\w+)|\b(\w+)\s*(?::[^=\n]*)?=(?!=)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownProblem:
    """One problem of a benchmark.

    Attributes:
        benchmark: the file it is from, relative to the folder.
        task_id: its name there.
        prompt: what is asked, whole.
        statement: the prompt's prose without its examples and code.
        solutions: code that solves it.
        tests: code that checks it.
        identifiers: names that the solution and the prompt's code bind: a disguise may change them, in the prose too.
    """

    benchmark: str
    task_id: str
    prompt: str
    statement: str
    solutions: tuple[str, ...]
    tests: tuple[str, ...]
    identifiers: frozenset[str]


def read_problems(benchmarks_dir: str) -> tuple[list[KnownProblem], list[str]]:
    """The problems in all files below a folder.

    Returns:
        The problems, and the files that hold none (training data, models' settings, ...), relative to the folder.

    Raises:
        InputError: there is no such folder, a file is malformed or only partly problems, or no file holds any.
    """
    if not os.path.isdir(benchmarks_dir):
        raise InputError(f"no folder {benchmarks_dir}; --benchmarks-dir takes a folder of files of problems")
    root = Path(benchmarks_dir)
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name.removesuffix(".gz").endswith(SUFFIXES))
    problems: list[KnownProblem] = []
    passed_over = []
    for path in paths:
        found = list(_file_problems(path, str(path.relative_to(root))))
        problems += found
        if not found:
            passed_over.append(str(path.relative_to(root)))
    if not problems:
        raise InputError(
            f"{benchmarks_dir} holds no problems: no JSONL, JSON array or parquet file with a text in "
            f"{' or '.join(map(repr, TEXT_FIELDS))}; name a folder of benchmarks with --benchmarks-dir"
        )
    return problems, passed_over


def _file_problems(path: Path, name: str) -> Iterator[KnownProblem]:
    if path.name.removesuffix(".gz").endswith(".json") and _is_object(path):
        return
    for number, (place, entry) in enumerate(read_records(path)):
        if not _is_problem(entry):
            if number == 0:
                return
            raise InputError(f'{place}: no "prompt" or "text", unlike the records before it; fix it or move the file away')
        yield _problem(name, place, entry)


def _is_object(path: Path) -> bool:
    """Whether a .json file is one object, such as a model's settings."""
    try:
        return isinstance(json.loads(read_text(path)), dict)
    except ValueError:
        return False


def _is_problem(entry: dict[str, Any]) -> bool:
    is_text = any(isinstance(entry.get(field), str) and entry[field].strip() for field in TEXT_FIELDS)
    return is_text and not any(field in entry for field in OTHER_RECORDS)


def _problem(benchmark: str, place: str, entry: dict[str, Any]) -> KnownProblem:
    prompt = next(entry[field] for field in TEXT_FIELDS if isinstance(entry.get(field), str) and entry[field].strip())
    solutions = tuple(entry[field] for field in SOLUTION_FIELDS if isinstance(entry.get(field), str))
    return KnownProblem(
        benchmark=benchmark,
        task_id=_task_id(entry, place),
        prompt=prompt,
        statement=_statement(prompt),
        solutions=solutions,
        tests=tuple(text for field in TEST_FIELDS for text in _texts(entry.get(field))),
        identifiers=frozenset().union(
            *(_bound_names(prompt, text) for text in solutions), *([] if solutions else [_signature(prompt)])
        ),
    )


def _task_id(entry: dict[str, Any], place: str) -> str:
    metadata = entry.get("metadata")
    if isinstance(metadata, dict) and "problem_id" in metadata:
        return f"{metadata.get('library', 'problem')}/{metadata['problem_id']}"
    return str(entry.get("task_id", entry.get("name", place.rpartition(":")[2])))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return ["\n".join(map(str, value))] if isinstance(value, list) and value else []


def _statement(prompt: str) -> str:
    """The last docstring, else the comment lines, else all; up to the examples."""
    docstrings = _DOCSTRING.findall(prompt)
    comments = "\n".join(_COMMENT_LINE.findall(prompt))
    for whole in (docstrings[-1][1] if docstrings else "", comments, prompt):
        for text in (_EXAMPLES.split(whole)[0], whole):
            if len(text.split()) >= MIN_STATEMENT_WORDS:
                return text
    return prompt


def _signature(prompt: str) -> set[str]:
    """The names in a prompt's last line of code, in any language."""
    lines = [line for line in _DOCSTRING.sub("", prompt).splitlines() if "(" in line and not _COMMENT_LINE.match(line)]
    return set(re.findall(r"[^\W\d]\w*", lines[-1])) if lines and lines[-1] != prompt else set()


def _bound_names(prompt: str, solution: str) -> set[str]:
    names = set()
    for source in (prompt + solution, solution):
        try:
            with warnings.catch_warnings(action="ignore"):  # of escapes that are none
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
