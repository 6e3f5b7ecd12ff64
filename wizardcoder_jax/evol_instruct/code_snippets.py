"""Code snippets for OSS-Instruct: consecutive lines sampled from source files or from records that contain code.

Source: Magicoder, arXiv 2312.02120, section 2.1, samples 1 to 15 consecutive lines of each document, and skips duplicates and
snippets without letters (ise-uiuc/magicoder @6bba7f4, src/magicoder/generate_data.py; @725e130, collect_fragments.py). Unlike
Magicoder, we use documents of up to 15 lines as a whole.
"""

import dataclasses
import glob
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import is_remote
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.core.seeded_random import random_bits
from wizardcoder_jax.evol_instruct.languages import SUFFIXES, parse_language_name

MAX_LINES = 15
FIELDS = ("snippet", "code", "content")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snippet:
    """Lines of code from which the teacher invents a programming problem.

    Attributes:
        id: "snippet-" followed by a hash of the code without whitespace.
        code: the lines of code.
        language: programming language according to the file suffix or the record's "language"; None if unknown.
    """

    id: str
    code: str
    language: str | None


class SnippetFile:
    """Iterable over the snippets in a file or in files.

    Each iteration reads the files in the order of their names and yields one snippet per document, without duplicates.

    Args:
        path: a file of records with a field "snippet", "code" or "content" and optionally "language", or a source file, or a
            folder of source files, or a glob pattern.
        run_seed: seed of the run, which determines the lines sampled from each document.

    Attributes:
        num_repeats: number of duplicates and snippets without letters that the latest iteration has skipped so far.
    """

    def __init__(self, path: str, run_seed: int) -> None:
        self._path, self._run_seed = path, run_seed
        self.num_repeats = 0

    def sha256(self) -> str:
        """Read the files, and return a SHA-256 hash of all snippets, which depends on the file contents and the run seed."""
        return hashlib.sha256("\n".join(snippet.id for snippet in self).encode()).hexdigest()

    def __iter__(self) -> Iterator[Snippet]:
        """Yield the snippets.

        Raises:
            InputError: no file or snippet was found, a file is not UTF-8 text, or a record has no code.
        """
        self.num_repeats = 0
        seen: set[int] = set()
        for location, text, language in self._texts():
            code = _sample_lines(
                text,
                random_bits(self._run_seed, location, "start"),
                random_bits(self._run_seed, location, "length"),
            )
            bare = "".join(code.split())
            digest = hashlib.sha256(bare.encode()).hexdigest()[:16]
            if int(digest, 16) in seen or not re.search(r"[^\W\d_]", bare):
                self.num_repeats += 1
                continue
            seen.add(int(digest, 16))
            yield Snippet(id=f"snippet-{digest}", code=code, language=language)
        if not seen:
            raise InputError(
                f'{self._path} has no snippets; expected source files, or records with "snippet" and optionally "language"'
            )

    def _texts(self) -> Iterator[tuple[str, str, str | None]]:
        """Yield (location, text, language) of each document. The location seeds the sampling, so it leaves out the folder."""
        for root, path in self._files():
            language = SUFFIXES.get(os.path.splitext(path)[1].lower())
            if language is None:
                for location, entry in read_records(path):
                    yield (os.path.basename(location), *_parse_record(location, entry))
            else:
                yield os.path.relpath(path, root), _read_source(path), language

    def _files(self) -> list[tuple[str, str]]:
        if is_remote(self._path):
            return [("", self._path)]
        if os.path.isdir(self._path):
            return [(self._path, path) for path in sorted(_source_files(self._path))]
        found = [self._path] if os.path.isfile(self._path) else sorted(glob.glob(self._path, recursive=True))
        if not found:
            raise InputError(
                f"no files match {self._path}; --seeds must be a file of snippets, source files or a folder of them"
            )
        return [(os.path.dirname(self._path.split("*")[0]), path) for path in found if os.path.isfile(path)]


def _source_files(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]  # skips .git, .venv and the like
        paths = (os.path.join(parent, name) for name in names if os.path.splitext(name)[1].lower() in SUFFIXES)
        yield from filter(os.path.isfile, paths)  # skips pipes and broken links


def _parse_record(location: str, entry: dict[str, Any]) -> tuple[str, str | None]:
    field = next((name for name in FIELDS if name in entry), None)
    if field is None:
        found = ", ".join(map(str, entry)) or "none"
        raise InputError(
            f'{location}: no field "snippet", "code" or "content" (fields: {found}), which --seeds-kind snippets requires'
        )
    text, language = entry[field], entry.get("language")
    if not isinstance(text, str):
        raise InputError(f'{location}: field "{field}" is {type(text).__name__}, expected a string')
    if language is not None and not isinstance(language, str):
        raise InputError(f'{location}: field "language" is {type(language).__name__}, expected a string')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f'{location}: field "{field}" has a lone surrogate at character {error.start}; remove it') from error
    return text, parse_language_name(language) if language else None


def _read_source(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; remove the file or convert it") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _sample_lines(text: str, start: int, length: int) -> str:
    lines = text.replace("\r\n", "\n").split("\n")
    if len(lines) > MAX_LINES:
        first = start % len(lines)
        lines = lines[first : first + 1 + length % MAX_LINES]
    return "\n".join(lines).strip("\n")
