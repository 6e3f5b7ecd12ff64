"""Finds the benchmark problems that a record holds, and says by what.

Tiers, from the plainest evidence to the subtlest:
* "substring": the words of a problem's statement, prompt or solution, one after another;
* "ngram": most of their word n-grams in one place, or a long run of words shared with prompt, solution or tests;
* "code": most of the solution's n-grams with identifiers made nameless: renamed, re-indented, reformatted;
* "judge": the teacher says so (judge.py).
"""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from wizardcoder_jax.evol_instruct.contamination.benchmark_problems import KnownProblem, read_problems
from wizardcoder_jax.evol_instruct.contamination.boilerplate_code import SNIPPETS
from wizardcoder_jax.evol_instruct.contamination.index_entries import (
    RUN_WORDS,
    WordRunIndex,
    code_entries,
    long_runs,
    word_entries,
)
from wizardcoder_jax.evol_instruct.contamination.lexing import (
    CODE_TOKENS_PER_GRAM,
    WORDS_PER_GRAM,
    Tokens,
    blank_comments,
    blank_type_hints,
    code_tokens,
    ngram_hashes,
    word_tokens,
    words,
)
from wizardcoder_jax.evol_instruct.contamination.ngram_index import NgramIndex
from wizardcoder_jax.evol_instruct.elimination_rules import CONTAMINATED, CandidateRecord, Rule, excerpt

SUBSTRING, NGRAM, CODE = "substring", "ngram", "code"
TIERS = (SUBSTRING, NGRAM, CODE)
MIN_WORDS_SCORE = 0.85
MIN_WORDS_WEIGHT = 30.0  # of a text that may be found in part; a lighter one must be there whole
MIN_CODE_SCORE = 0.85
MIN_CODE_WEIGHT = 5.0  # of code that is looked for at all
SURE_CODE_WEIGHT = 50.0  # of code that may be found in part
EXCERPT_LENGTH = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContaminationMatch:
    """A problem found in a text."""

    tier: str
    benchmark: str
    task_id: str
    part: str
    score: float
    text: str

    def __str__(self) -> str:
        return f"{self.tier} {self.score:.2f}, {self.part} of {self.task_id} ({self.benchmark}): {self.text}"


class ContaminationDetector:
    """The problems of all files below a folder, and the search for them.

    Attributes:
        problems: what is looked for.
        passed_over: files of the folder that hold no problems.

    Raises:
        InputError: as read_problems.
    """

    def __init__(self, benchmarks_dir: str) -> None:
        self.problems, self.passed_over = read_problems(benchmarks_dir)
        numbered = list(enumerate(self.problems))
        stock = [ngram_hashes(code_tokens(snippet), CODE_TOKENS_PER_GRAM) for snippet in SNIPPETS]
        self._words = NgramIndex([row for number, problem in numbered for row in word_entries(number, problem)])
        self._code = NgramIndex(
            [row for number, problem in numbered for row in code_entries(number, problem)], np.concatenate(stock)
        )
        self._runs = WordRunIndex(self.problems)

    @property
    def num_problems(self) -> int:
        """How many problems are looked for."""
        return len(self.problems)

    @property
    def num_problems_of(self) -> dict[str, int]:
        """How many problems each file holds."""
        return dict(Counter(problem.benchmark for problem in self.problems))

    @property
    def sha256(self) -> str:
        """A hash of all problems."""
        content = json.dumps([dataclasses.astuple(problem)[:-1] for problem in self.problems])  # identifiers are a set
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def rule(self) -> Rule:
        """The elimination rule that drops records which hold a problem: first the instruction, then it and its response."""

        def check(candidate: CandidateRecord) -> str | None:
            parts = (candidate.instruction, candidate.response)
            return self.find("\n".join(part for part in parts if part is not None))

        return Rule(name=CONTAMINATED, check=check)

    def find(self, text: str) -> str | None:
        """The plainest evidence that `text` holds a problem; None if it holds none."""
        found = self.hits(text)
        return str(found[0]) if found else None

    def hits(self, text: str) -> list[ContaminationMatch]:
        """Each problem that `text` holds, by its plainest evidence; the plainest first."""
        best: dict[int, ContaminationMatch] = {}
        for number, hit in (*self._word_hits(text), *self._code_hits(text)):
            if number not in best or _plainness(hit) < _plainness(best[number]):
                best[number] = hit
        return sorted(best.values(), key=_plainness)

    def nearest(self, text: str, num: int) -> list[tuple[KnownProblem, float]]:
        """The problems of which `text` holds most n-grams, with the share of them; one of those that are alike.

        Problems of one name count as alike: HumanEval's are in several files.
        """
        shares: dict[str, tuple[float, int]] = {}
        word_grams, code_grams = (
            ngram_hashes(word_tokens(text), WORDS_PER_GRAM),
            ngram_hashes(code_tokens(text), CODE_TOKENS_PER_GRAM),
        )
        for index, own in ((self._words, word_grams), (self._code, code_grams)):
            rows, scores = index.scores(own)
            is_telling = index.weight[rows] >= MIN_WORDS_WEIGHT
            for row, score in zip(rows[is_telling].tolist(), scores[is_telling].tolist(), strict=True):
                number = index.rows[row].problem
                task_id = self.problems[number].task_id
                shares[task_id] = max(shares.get(task_id, (0.0, number)), (score, number), key=lambda share: share[0])
        best = sorted(shares.values(), key=lambda share: (-share[0], share[1]))[:num]
        return [(self.problems[number], score) for score, number in best]

    def _word_hits(self, text: str) -> Iterator[tuple[int, ContaminationMatch]]:
        tokens = word_tokens(text)
        yield from self._row_hits(text, tokens, text)
        code = blank_comments(text)
        if code != text:  # comments may be added to a copy
            yield from self._row_hits(text, word_tokens(code), code)
        run = self._runs.first(long_runs(tokens))
        if run is not None:
            shown = _shown(text, tokens, run.first, run.first + RUN_WORDS)
            yield run.problem, self._hit(run.problem, run.part, NGRAM, 1.0, shown)

    def _row_hits(self, text: str, tokens: Tokens, read: str) -> Iterator[tuple[int, ContaminationMatch]]:
        """By the words of `read`, which is `text` or what is left of it in place."""
        joined = ""
        for row, match in self._words.found(ngram_hashes(tokens, WORDS_PER_GRAM), MIN_WORDS_SCORE):
            joined = joined or f" {' '.join(words(read))} "
            is_whole = bool(row.whole) and row.whole in joined
            is_renamed = bool(row.pattern) and re.search(row.pattern, joined) is not None
            if is_whole or is_renamed or self._words.weight[match.row] >= MIN_WORDS_WEIGHT:
                shown = _shown(text, tokens, match.first, match.last + WORDS_PER_GRAM)
                yield row.problem, self._hit(row.problem, row.part, SUBSTRING if is_whole else NGRAM, match.score, shown)

    def _code_hits(self, text: str) -> Iterator[tuple[int, ContaminationMatch]]:
        unhinted = blank_type_hints(text)
        for read in (text,) if unhinted == text else (text, unhinted):  # hints may be added to a copy, or left out
            yield from self._code_row_hits(text, read)

    def _code_row_hits(self, text: str, read: str) -> Iterator[tuple[int, ContaminationMatch]]:
        """By the code of `read`, which is `text` or what is left of it in place."""
        tokens = code_tokens(read)
        for row, match in self._code.found(ngram_hashes(tokens, CODE_TOKENS_PER_GRAM), MIN_CODE_SCORE):
            weight = self._code.weight[match.row]
            end = match.last + CODE_TOKENS_PER_GRAM
            is_whole = match.score > 0.999 and _ends_line(text, tokens, end)
            if weight >= SURE_CODE_WEIGHT or (weight >= MIN_CODE_WEIGHT and is_whole):
                shown = _shown(text, tokens, match.first, end)
                yield row.problem, self._hit(row.problem, row.part, CODE, match.score, shown)

    def _hit(self, number: int, part: str, tier: str, score: float, text: str) -> ContaminationMatch:
        problem = self.problems[number]
        return ContaminationMatch(
            tier=tier, benchmark=problem.benchmark, task_id=problem.task_id, part=part, score=score, text=text
        )


def _plainness(hit: ContaminationMatch) -> tuple[int, float]:
    return TIERS.index(hit.tier), -hit.score


def _ends_line(text: str, tokens: Tokens, end: int) -> bool:
    """Whether token `end` is on a later line than the one before it."""
    return end >= len(tokens.spans) or "\n" in text[tokens.spans[end - 1][1] : tokens.spans[end][0]]


def _shown(text: str, tokens: Tokens, first: int, end: int) -> str:
    """The part of `text` from token `first` to before token `end`."""
    return excerpt(text[tokens.spans[first][0] : tokens.spans[end - 1][1]], EXCERPT_LENGTH)
