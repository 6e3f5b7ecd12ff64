"""The search index entries of a benchmark problem: its texts tokenized as words and as code, and its long word sequences."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from wizardcoder_jax.evol_instruct.contamination.benchmark_problems import KnownProblem
from wizardcoder_jax.evol_instruct.contamination.lexing import (
    CODE_TOKENS_PER_GRAM,
    WORDS_PER_GRAM,
    Hashes,
    Tokens,
    blank_type_hints,
    identifier_around,
    lower_case_words,
    ngram_hashes,
    remove_comments,
    tokenize_code,
    tokenize_words,
)
from wizardcoder_jax.evol_instruct.contamination.ngram_index import IndexEntry, intersect_sorted

STATEMENT, PROMPT, SOLUTION, TESTS = "statement", "prompt", "solution", "tests"
MIN_WORDS = {STATEMENT: 5, PROMPT: 7, SOLUTION: 5}  # minimum number of words, excluding numbers; shorter texts are too common
MIN_BODY_TOKENS = 12  # minimum number of tokens of a function body; `return found[0]`, for example, is too common
MAX_GAPS = 10  # maximum number of gaps in a pattern; a gap stands for one or more adjacent identifiers
MIN_FIXED_WORDS = 6  # minimum number of words outside the gaps of a pattern
GAP = r"(?:\w+ ){1,4}"  # regular expression of a gap in a pattern, which matches 1 to 4 words
RUN_WORDS = 20  # number of consecutive words that a text must share with a problem to match
MAX_PROBLEMS_PER_RUN = 10  # a word sequence that occurs in more problems is boilerplate of the benchmark


def word_entries(number: int, problem: KnownProblem) -> Iterator[IndexEntry]:
    """Yield the word entries of problem `number`: its statement, prompt and solutions.

    If the statement or the prompt contains identifiers of the problem, also yield an entry that ignores them.
    """
    seen = set()
    for part, text in _texts(problem):
        tokens, own = tokenize_words(text), tuple(lower_case_words(text))
        if sum(not word.isdecimal() for word in own) < MIN_WORDS[part] or own in seen:
            continue
        seen.add(own)
        ngrams = ngram_hashes(tokens, WORDS_PER_GRAM)
        yield IndexEntry(problem=number, part=part, ngrams=ngrams, whole=f" {' '.join(own)} ")
        if part != SOLUTION:
            yield from _entries_without_names(number, problem, part, text, tokens, ngrams)


def _texts(problem: KnownProblem) -> Iterator[tuple[str, str]]:
    yield STATEMENT, problem.statement
    yield PROMPT, problem.prompt
    for solution in problem.solutions:
        yield SOLUTION, solution
        yield SOLUTION, remove_comments(solution)
        if "def " in problem.prompt:
            yield SOLUTION, remove_comments(problem.prompt + solution)


def _entries_without_names(
    number: int, problem: KnownProblem, part: str, text: str, tokens: Tokens, ngrams: Hashes
) -> Iterator[IndexEntry]:
    """Yield an entry without the n-grams that contain identifiers of the problem, because a disguised copy may rename them."""
    names = [identifier_around(text, start, end) for start, end in tokens.spans]
    are_names = np.array([name in problem.identifiers for name in names])
    touched = np.convolve(are_names, np.ones(WORDS_PER_GRAM, int), "valid") > 0
    if not touched.any() or touched.all():
        return
    pieces: list[str] = []
    for (start, end), is_name in zip(tokens.spans, are_names.tolist(), strict=True):
        piece = GAP if is_name else re.escape(text[start:end].lower()) + " "
        if not (is_name and pieces and pieces[-1] == GAP):
            pieces.append(piece)
    num_gaps = pieces.count(GAP)
    has_pattern = part == STATEMENT and num_gaps <= MAX_GAPS and len(pieces) - num_gaps >= MIN_FIXED_WORDS
    pattern = " " + "".join(pieces) if has_pattern else ""
    yield IndexEntry(problem=number, part=part, ngrams=np.where(touched, np.uint64(0), ngrams), pattern=pattern)


def code_entries(number: int, problem: KnownProblem) -> Iterator[IndexEntry]:
    """Yield the code entries of problem `number`: its solutions, alone and after the function signature in the prompt."""
    for solution in problem.solutions:
        is_body = "def " in problem.prompt
        for text in (solution, problem.prompt + solution) if is_body else (solution,):
            for variant in dict.fromkeys((text, blank_type_hints(text))):
                tokens = tokenize_code(variant)
                if text is not solution or not is_body or len(tokens.hashes) >= MIN_BODY_TOKENS:
                    yield IndexEntry(problem=number, part=SOLUTION, ngrams=ngram_hashes(tokens, CODE_TOKENS_PER_GRAM))


def long_runs(tokens: Tokens) -> Hashes:
    """Return the hash of every sequence of RUN_WORDS words; 0 if more than half of its words are numbers."""
    runs = ngram_hashes(tokens, RUN_WORDS)
    if not len(runs):
        return runs
    return np.where(np.convolve(tokens.are_plain, np.ones(RUN_WORDS), "valid") > RUN_WORDS / 2, np.uint64(0), runs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordRunMatch:
    """A long word sequence that a text shares with a problem."""

    problem: int  # index of the problem
    part: str  # part of the problem with the sequence: "prompt" or "tests"
    first: int  # position in the text of the first word of the sequence


class WordRunIndex:
    """Index of long word sequences in prompts and tests. It excludes solutions: even a textbook bubble sort is that long."""

    def __init__(self, problems: Sequence[KnownProblem]) -> None:
        owners: dict[int, tuple[int, str]] = {}
        counts: Counter[int] = Counter()
        for number, problem in enumerate(problems):
            own: dict[int, str] = {}
            for part, texts in ((TESTS, problem.tests), (PROMPT, (problem.prompt,))):
                for text in texts:
                    own.update(dict.fromkeys(long_runs(tokenize_words(text)).tolist(), part))
            own.pop(0, None)
            counts.update(own.keys())
            for run, part in own.items():
                owners.setdefault(run, (number, part))
        kept = sorted(run for run in owners if counts[run] <= MAX_PROBLEMS_PER_RUN)
        self._owners = [owners[run] for run in kept]
        self._runs = np.array(kept, np.uint64)

    def find_first(self, runs: Hashes) -> WordRunMatch | None:
        """Return the first match among the word sequences of a text, or None.

        Args:
            runs: hashes of the word sequences, from `long_runs`.
        """
        positions, own = intersect_sorted(self._runs, runs)
        if not len(positions):
            return None
        number, part = self._owners[int(own[0])]
        return WordRunMatch(problem=number, part=part, first=int(positions[0]))
