"""Finds records that hold a benchmark problem: its text, or a long run of tokens from its text or its solution.

Texts are compared as lower-case runs of letters and digits, so spacing, quotes and punctuation do not matter.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from wizardcoder_jax.errors import InputError
from wizardcoder_jax.files import read_records
from wizardcoder_jax.instructions.rules import CONTAMINATED, Rule, excerpt

TEXT_FIELDS = ("prompt", "text")
SOLUTION_FIELDS = ("canonical_solution", "code")
NGRAM_TOKENS = 20  # a shared run of so many tokens is a match
MIN_PROMPT_TOKENS = 8  # a shorter problem text is too common to be evidence
MAX_PROBLEMS_PER_NGRAM = 10  # a run that more problems share is boilerplate of the benchmark

_TOKEN = re.compile(r"[^\W_]+")


class Contamination:
    """The problems of all JSONL(.gz) files below `benchmarks_dir`, indexed by their runs of tokens.

    Raises:
        InputError: no such folder, no files in it, or a record that is no problem (file and line named).
    """

    def __init__(self, benchmarks_dir: str) -> None:
        self.num_problems = 0
        owners: dict[tuple[str, ...], str] = {}
        counts: Counter[tuple[str, ...]] = Counter()
        for name, runs in self._problems(benchmarks_dir):
            counts.update(runs)
            for run in runs:
                owners.setdefault(run, name)
        self._owners = {run: name for run, name in owners.items() if counts[run] <= MAX_PROBLEMS_PER_NGRAM}
        self._lengths = sorted({len(run) for run in self._owners})

    def _problems(self, benchmarks_dir: str) -> Iterator[tuple[str, set[tuple[str, ...]]]]:
        for path in _problem_files(benchmarks_dir):
            for place, entry in read_records(path):
                texts = [entry[field] for field in TEXT_FIELDS if isinstance(entry.get(field), str)]
                if not texts:
                    raise InputError(f'{place}: no "prompt" or "text"; benchmarks_dir must hold only files of problems')
                solutions = [entry[field] for field in SOLUTION_FIELDS if isinstance(entry.get(field), str)]
                self.num_problems += 1
                runs = {run for text in texts for run in _problem_runs(text, MIN_PROMPT_TOKENS)}
                runs |= {run for text in solutions for run in _problem_runs(text, NGRAM_TOKENS)}
                yield f"{path.name}: {entry.get('task_id', entry.get('name', place))}", runs

    def find(self, text: str) -> str | None:
        """The first problem that `text` holds, with the run of tokens that shows it; None if there is none."""
        tokens = _TOKEN.findall(text.lower())
        for length in self._lengths:
            for run in _ngrams(tokens, length):
                if run in self._owners:
                    return f"{self._owners[run]}: {excerpt(' '.join(run), 120)}"
        return None

    @property
    def rule(self) -> Rule:
        """The elimination rule that drops records which hold a problem."""
        return Rule(name=CONTAMINATED, check=lambda candidate: self.find(candidate.newest))


def _problem_files(benchmarks_dir: str) -> list[Path]:
    if not os.path.isdir(benchmarks_dir):
        raise InputError(f"no folder {benchmarks_dir}; --benchmarks-dir takes a folder of JSONL files of problems")
    files = sorted(p for p in Path(benchmarks_dir).rglob("*") if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not files:
        raise InputError(f"{benchmarks_dir} holds no .jsonl or .jsonl.gz file of problems")
    return files


def _problem_runs(text: str, min_tokens: int) -> set[tuple[str, ...]]:
    """The runs that show `text`: all its n-grams, or the whole text where it is shorter than one."""
    tokens = _TOKEN.findall(text.lower())
    if len(tokens) < min_tokens:
        return set()
    return set(_ngrams(tokens, min(NGRAM_TOKENS, len(tokens))))


def _ngrams(tokens: list[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1))
