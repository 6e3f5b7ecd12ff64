"""One instruction with its response, and where it came from: a seed (round 0) or a record evolved from another."""

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
from wizardcoder_jax.evol_instruct.languages import LANGUAGE_NAMES, parse_language_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """What a record cost the teacher, summed over its calls."""

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
        id: "seed-..." or "evol-...", a hash of the content: the same content has the same id in every run.
        parent_id: the record it was evolved from; None for a seed.
        seed_id: the seed it descends from; its own id for a seed.
        round: 0 for a seed.
        method: number of the evolution method, 1 to 6; None for a seed.
        teacher: the model that wrote it, as the server names it; None for a seed.
        filters: names of the rules it was checked with and passed.
        task: what is asked of the code, one of TASK_NAMES; all descendants of a seed have its task.
        language: programming language asked for; None where it is not said.
        call_ids: keys of the ledger's rows that made it, in the order of the calls.
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
        """The record as a line of evolved.jsonl."""
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
        """The record of a line of evolved.jsonl; what it cost in USD is not in it."""
        usage = Usage(**entry["usage"], num_calls=len(entry["call_ids"]))
        lists = {name: tuple(entry[name]) for name in ("filters", "call_ids")}
        return Record(**{**entry, "usage": usage, **lists})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """A record that a rule dropped, and the text that made it."""

    record: Record
    rule: str
    evidence: str

    def to_json(self) -> dict[str, Any]:
        """The rejection as a line of rejected.jsonl."""
        return {**self.record.to_json(), "rule": self.rule, "evidence": self.evidence}


def seed_record(id_: str, instruction: str, output: str, *, task: str = GENERATE, language: str | None = None) -> Record:
    """A record of round 0, which descends from nothing."""
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
    """The id of a seed: a hash of its instruction (its input joined) and output, and of task and language where it has them."""
    said = [*([task] if task != GENERATE else []), *([f"language={language}"] if language else [])]
    return "seed-" + hashlib.sha256("\0".join([instruction, output, *said]).encode()).hexdigest()[:16]


def evolved_id(parent_id: str, round_: int, instruction: str, output: str) -> str:
    """The id of a record evolved from `parent_id` in round `round_`."""
    content = f"{parent_id}\0{round_}\0{instruction}\0{output}"
    return "evol-" + hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:16]


def replace_surrogates(text: str) -> str:
    """The text as a file can hold it: a lone surrogate, which no rule lets pass, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


class SeedFile:
    """The seeds of a file of {"instruction", "input"?, "output", "task"?, "language"?, "target_language"?} records.

    Iterating reads the file and yields each content once, in the order of the file; it can be done again.

    Attributes:
        num_repeats: seeds that the newest reading has left out so far.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self.num_repeats = 0

    def __iter__(self) -> Iterator[Record]:
        """Yields the seeds.

        Raises:
            InputError: a field is missing or wrong (file, line and field named), or the file holds no seed.
        """
        self.num_repeats = 0
        seen: set[int] = set()  # of numbers, so that a million seeds take little memory
        for place, entry in read_records(self._path):
            seed = _seed(place, entry)
            number = int(seed.id.removeprefix("seed-"), 16)
            if number in seen:
                self.num_repeats += 1
                continue
            seen.add(number)
            yield seed
        if not seen:
            raise InputError(
                f'{os.fspath(self._path)} holds no seeds; expected records of {{"instruction", "input"?, "output"}}'
            )


def read_seeds(path: str | os.PathLike[str]) -> tuple[list[Record], int]:
    """All seeds of a file, each content once, and the number of repeats that were left out.

    Raises:
        InputError: as SeedFile.
    """
    seeds = SeedFile(path)
    return list(seeds), seeds.num_repeats


def _seed(place: str, entry: dict[str, Any]) -> Record:
    instruction = _text(place, entry, "instruction")
    output = _text(place, entry, "output")
    if not instruction.strip():
        raise InputError(f'{place}: "instruction" is empty; fill it in or remove the record')
    extra = _text(place, entry, "input") if entry.get("input") is not None else None
    joined = with_input(instruction, extra)
    task = _task(place, entry)
    own, target = _language(place, entry, "language"), _language(place, entry, "target_language")
    language = target if task == TRANSLATE else own
    id_ = seed_id(joined, output, task, language)
    return seed_record(id_, joined, output, task=task, language=language)


def _task(place: str, entry: dict[str, Any]) -> str:
    if entry.get("task") in (None, ""):
        return GENERATE
    task = _text(place, entry, "task")
    if task not in TASK_NAMES:
        raise InputError(f'{place}: field "task" is {excerpt(task)!r}; it is one of {", ".join(TASK_NAMES)}')
    return task


def _language(place: str, entry: dict[str, Any], field: str) -> str | None:
    if entry.get(field) in (None, ""):
        return None
    name = _text(place, entry, field)
    language = parse_language_name(name)
    if language is None:
        known = ", ".join(LANGUAGE_NAMES)
        raise InputError(f'{place}: field "{field}" is {excerpt(name)!r}; name one of {known}, or remove the field')
    return language


def _text(place: str, entry: dict[str, Any], field: str) -> str:
    if field not in entry:
        found = ", ".join(map(str, entry)) or "none"
        raise InputError(f'{place}: no field "{field}" (fields: {found}); seeds are {{"instruction", "input"?, "output"}}')
    value = entry[field]
    if not isinstance(value, str):
        raise InputError(f'{place}: field "{field}" is {type(value).__name__}, expected a text')
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f'{place}: field "{field}" holds a lone surrogate at character {error.start}; remove it') from error
    return value
