"""Records: an instruction with its response and lineage, either a seed (round 0) or evolved from another record."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import with_input
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.evol_instruct.code_tasks import GENERATE, TASK_NAMES, TRANSLATE
from wizardcoder_jax.evol_instruct.elimination_rules import excerpt
from wizardcoder_jax.evol_instruct.file_hash import file_sha256
from wizardcoder_jax.evol_instruct.languages import LANGUAGE_NAMES, parse_language_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens and cost of a record, summed over its teacher calls."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    num_calls: int = 0
    usd: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            num_calls=self.num_calls + other.num_calls,
            usd=self.usd + other.usd,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """An instruction, its response and its lineage.

    Attributes:
        id: "seed-..." or "evol-...", a hash of the content: equal content has the same id in every run.
        parent_id: id of the record that it was evolved from; None for a seed.
        seed_id: id of the seed that it descends from; its own id for a seed.
        round: the round that created it; 0 for a seed.
        method: number of the evolution method, 1 to 6; None for a seed.
        teacher: name of the model that wrote it, as reported by the server; None for a seed.
        filters: names of the rules that it passed.
        task: one of TASK_NAMES; all descendants of a seed have its task.
        language: the requested programming language; None if it is not specified.
        call_ids: keys of the ledger rows of its calls, in the order of the calls.
    """

    id: str
    parent_id: str | None
    seed_id: str
    round: int
    method: int | None
    instruction: str
    output: str
    teacher: str | None
    usage: Usage = Usage()
    filters: tuple[str, ...] = ()
    task: str = GENERATE
    language: str | None = None
    call_ids: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as a line of evolved.jsonl."""
        return {
            "id": self.id,
            "parent_id": self.parent_id,
            "seed_id": self.seed_id,
            "round": self.round,
            "method": self.method,
            "instruction": self.instruction,
            "output": self.output,
            "teacher": self.teacher,
            "usage": {"prompt_tokens": self.usage.prompt_tokens, "completion_tokens": self.usage.completion_tokens},
            "filters": list(self.filters),
            "task": self.task,
            "language": self.language,
            "call_ids": list(self.call_ids),
        }

    @staticmethod
    def from_json(entry: dict[str, Any]) -> "Record":
        """Return the record of a line of evolved.jsonl, which does not include the cost in USD."""
        usage = Usage(**entry["usage"], num_calls=len(entry["call_ids"]))
        lists = {name: tuple(entry[name]) for name in ("filters", "call_ids")}
        return Record(**{**entry, "usage": usage, **lists})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """A rejected record, with the rule that it failed and the evidence."""

    record: Record
    rule: str
    evidence: str

    def to_json(self) -> dict[str, Any]:
        """Return the rejection as a line of rejected.jsonl."""
        return {**self.record.to_json(), "rule": self.rule, "evidence": self.evidence}


def seed_record(id_: str, instruction: str, output: str, *, task: str = GENERATE, language: str | None = None) -> Record:
    """Return a record of round 0, which has no parent."""
    return Record(
        id=id_,
        parent_id=None,
        seed_id=id_,
        round=0,
        method=None,
        instruction=instruction,
        output=output,
        teacher=None,
        task=task,
        language=language,
    )


def seed_id(instruction: str, output: str, task: str = GENERATE, language: str | None = None) -> str:
    """Return the id of a seed: a hash of instruction (joined with the input), output, and task and language if specified."""
    optional = [*([task] if task != GENERATE else []), *([f"language={language}"] if language else [])]
    return "seed-" + hashlib.sha256("\0".join([instruction, output, *optional]).encode()).hexdigest()[:16]


def evolved_id(parent_id: str, round_: int, instruction: str, output: str) -> str:
    """Return the id of a record evolved from `parent_id` in round `round_`."""
    content = f"{parent_id}\0{round_}\0{instruction}\0{output}"
    return "evol-" + hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:16]


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded as UTF-8, with question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


class SeedFile:
    """The seeds of a file of {"instruction", "input"?, "output", "task"?, "language"?, "target_language"?} records.

    Each iteration reads the file and yields the distinct seeds in the order of the file.

    Attributes:
        num_repeats: number of duplicate seeds skipped so far by the latest iteration.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self.num_repeats = 0

    def sha256(self) -> str:
        """Return the hash of the file's (decompressed) content."""
        return file_sha256(self._path)

    def __iter__(self) -> Iterator[Record]:
        """Yield the seeds.

        Raises:
            InputError: a field is missing or invalid (the message names file, line and field), or the file has no seed.
        """
        self.num_repeats = 0
        seen: set[int] = set()  # integers, so that a million seeds take little memory
        for location, entry in read_records(self._path):
            seed = _seed(location, entry)
            number = int(seed.id.removeprefix("seed-"), 16)
            if number in seen:
                self.num_repeats += 1
                continue
            seen.add(number)
            yield seed
        if not seen:
            raise InputError(f'{os.fspath(self._path)} has no seeds; expected records of {{"instruction", "input"?, "output"}}')


def read_seeds(path: str | os.PathLike[str]) -> tuple[list[Record], int]:
    """Read the distinct seeds of a file, and count the duplicates that were skipped.

    Raises:
        InputError: as SeedFile.
    """
    seeds = SeedFile(path)
    return list(seeds), seeds.num_repeats


def _seed(location: str, entry: dict[str, Any]) -> Record:
    instruction = _text(location, entry, "instruction")
    output = _text(location, entry, "output")
    if not instruction.strip():
        raise InputError(f'{location}: "instruction" is empty; fill it in or remove the record')
    extra = _text(location, entry, "input") if entry.get("input") is not None else None
    joined = with_input(instruction, extra)
    task = _task(location, entry)
    own, target = _language(location, entry, "language"), _language(location, entry, "target_language")
    language = target if task == TRANSLATE else own
    id_ = seed_id(joined, output, task, language)
    return seed_record(id_, joined, output, task=task, language=language)


def _task(location: str, entry: dict[str, Any]) -> str:
    if entry.get("task") in (None, ""):
        return GENERATE
    task = _text(location, entry, "task")
    if task not in TASK_NAMES:
        raise InputError(f'{location}: field "task" is {excerpt(task)!r}, expected one of {", ".join(TASK_NAMES)}')
    return task


def _language(location: str, entry: dict[str, Any], field: str) -> str | None:
    if entry.get(field) in (None, ""):
        return None
    name = _text(location, entry, field)
    language = parse_language_name(name)
    if language is None:
        known = ", ".join(LANGUAGE_NAMES)
        raise InputError(
            f'{location}: field "{field}" is {excerpt(name)!r}, expected one of {known}; fix it or remove the field'
        )
    return language


def _text(location: str, entry: dict[str, Any], field: str) -> str:
    if field not in entry:
        found = ", ".join(map(str, entry)) or "none"
        raise InputError(
            f'{location}: no field "{field}" (fields: {found}); seeds have the fields {{"instruction", "input"?, "output"}}'
        )
    value = entry[field]
    if not isinstance(value, str):
        raise InputError(f'{location}: field "{field}" is {type(value).__name__}, expected a text')
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f'{location}: field "{field}" has a lone surrogate at character {error.start}; remove it') from error
    return value
