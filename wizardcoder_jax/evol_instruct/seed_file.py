"""Seed files: JSONL, JSON or Parquet files of instructions with their answers, read as records of round 0."""

import os
from collections.abc import Iterator
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.file_hash import file_sha256
from wizardcoder_jax.core.instruction_template import with_input
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.evol_instruct.code_tasks import GENERATE, TASK_NAMES, TRANSLATE
from wizardcoder_jax.evol_instruct.elimination_rules import excerpt
from wizardcoder_jax.evol_instruct.languages import LANGUAGE_NAMES, parse_language_name
from wizardcoder_jax.evol_instruct.records import Record, seed_id, seed_record


class SeedFile:
    """The seeds in a file of records with the fields "instruction", "output" and optional ones.

    The optional fields are "input", "task", "language" and "target_language". Each iteration over a SeedFile reads the file
    again and yields the distinct seeds in the order of the file.

    Attributes:
        num_repeats: number of duplicate seeds that the latest iteration has skipped so far.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self.num_repeats = 0

    def sha256(self) -> str:
        """Return the SHA-256 hash of the file's content after decompression."""
        return file_sha256(self._path)

    def __iter__(self) -> Iterator[Record]:
        """Read the file and yield its distinct seeds.

        Raises:
            InputError: a field is missing or invalid (the message names file, line and field), or the file has no seeds.
        """
        self.num_repeats = 0
        seen: set[int] = set()  # ids as integers, which need less memory than strings
        for location, entry in read_records(self._path):
            seed = _seed(location, entry)
            number = int(seed.id.removeprefix("seed-"), 16)
            if number in seen:
                self.num_repeats += 1
                continue
            seen.add(number)
            yield seed
        if not seen:
            raise InputError(f'{os.fspath(self._path)} has no seeds; add records with the fields "instruction" and "output"')


def read_seeds(path: str | os.PathLike[str]) -> tuple[list[Record], int]:
    """Return the distinct seeds in a file, and the number of duplicates that were skipped.

    Raises:
        InputError: see SeedFile.__iter__.
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
        known = ", ".join(TASK_NAMES)
        raise InputError(f'{location}: field "task" is {excerpt(task)!r}, expected one of {known}; fix it or remove the field')
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
        raise InputError(f'{location}: no field "{field}" (found: {found}); a seed needs the fields "instruction" and "output"')
    value = entry[field]
    if not isinstance(value, str):
        raise InputError(f'{location}: field "{field}" is {type(value).__name__}, expected a string')
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f'{location}: field "{field}" has a lone surrogate at character {error.start}; remove it') from error
    return value
