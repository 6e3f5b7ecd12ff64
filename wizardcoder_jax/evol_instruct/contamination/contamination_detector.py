"""A detector that finds copies of benchmark problems in a text and reports the evidence for each.

Evidence comes in tiers, from the most obvious to the subtlest:
* "substring": the text contains all words of the statement, prompt or a solution of the problem, in order and uninterrupted;
* "ngram": one passage of the text contains most word n-grams of the statement, prompt or a solution, or the text shares a long
  word sequence with the prompt or tests;
* "code": one passage contains most token n-grams of a solution after identifiers are anonymized, which finds renamed,
  re-indented and reformatted copies;
* "judge": the teacher considers the record a copy (contamination_judge.py).
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
    lower_case_words,
    ngram_hashes,
    tokenize_code,
    tokenize_words,
)
from wizardcoder_jax.evol_instruct.contamination.ngram_index import NgramIndex
from wizardcoder_jax.evol_instruct.elimination_rules import CONTAMINATED, CandidateRecord, Rule, excerpt

SUBSTRING, NGRAM, CODE = "substring", "ngram", "code"
TIERS = (SUBSTRING, NGRAM, CODE)
MIN_WORDS_SCORE = 0.85  # minimum weighted share of the word n-grams of a statement, prompt or solution
MIN_WORDS_WEIGHT = 30.0  # minimum total weight of the word n-grams for a partial match; lighter texts must match completely
MIN_CODE_SCORE = 0.85  # minimum weighted share of the code n-grams of a solution
MIN_CODE_WEIGHT = 5.0  # minimum total weight of the code n-grams of a solution; lighter solutions are ignored
SURE_CODE_WEIGHT = 50.0  # minimum total weight of the code n-grams for a partial match; lighter solutions must match completely
EXCERPT_LENGTH = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContaminationMatch:
    """A problem found in a text, with the evidence. `str(match)` is the "evidence" of a rejected record."""

    tier: str
    benchmark: str
    task_id: str
    part: str
    score: float
    text: str

    def __str__(self) -> str:
        return f"{self.tier} {self.score:.2f}, {self.part} of {self.task_id} ({self.benchmark}): {self.text}"


class ContaminationDetector:
    """Detector of all problems in the benchmark files below a folder.

    Attributes:
        problems: the problems to search for.
        skipped_files: paths of files without problems, relative to the folder.

    Raises:
        InputError: the folder or a file in it is not usable; see `read_problems`.
    """

    def __init__(self, benchmarks_dir: str) -> None:
        self.problems, self.skipped_files = read_problems(benchmarks_dir)
        numbered = list(enumerate(self.problems))
        boilerplate = [ngram_hashes(tokenize_code(snippet), CODE_TOKENS_PER_GRAM) for snippet in SNIPPETS]
        self._words = NgramIndex([entry for number, problem in numbered for entry in word_entries(number, problem)])
        self._code = NgramIndex(
            [entry for number, problem in numbered for entry in code_entries(number, problem)], np.concatenate(boilerplate)
        )
        self._runs = WordRunIndex(self.problems)

    @property
    def num_problems(self) -> int:
        """Number of problems to search for."""
        return len(self.problems)

    @property
    def num_problems_by_file(self) -> dict[str, int]:
        """Number of problems in each benchmark file."""
        return dict(Counter(problem.benchmark for problem in self.problems))

    @property
    def sha256(self) -> str:
        """SHA-256 hash of all problems."""
        # Leave out the last field, `identifiers`: it is a set, and its iteration order varies between processes.
        content = json.dumps([dataclasses.astuple(problem)[:-1] for problem in self.problems])
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def rule(self) -> Rule:
        """Elimination rule that rejects contaminated records. It checks the instruction, and the response once there is one."""

        def check(candidate: CandidateRecord) -> str | None:
            parts = (candidate.instruction, candidate.response)
            return self.find_evidence("\n".join(part for part in parts if part is not None))

        return Rule(name=CONTAMINATED, check=check)

    def find_evidence(self, text: str) -> str | None:
        """Return the most obvious evidence that `text` contains a problem, or None if it contains none."""
        matches = self.find_matches(text)
        return str(matches[0]) if matches else None

    def find_matches(self, text: str) -> list[ContaminationMatch]:
        """Return the match with the most obvious evidence for each problem in `text`, sorted from most to least obvious."""
        best: dict[int, ContaminationMatch] = {}
        for number, match in (*self._word_matches(text), *self._code_matches(text)):
            if number not in best or _rank(match) < _rank(best[number]):
                best[number] = match
        return sorted(best.values(), key=_rank)

    def nearest(self, text: str, num: int) -> list[tuple[KnownProblem, float]]:
        """Return the `num` problems most similar to `text`, as (problem, weighted share of its n-grams in `text`).

        Problems with the same task id count as one, because several benchmark files contain the HumanEval problems.
        """
        shares: dict[str, tuple[float, int]] = {}
        word_ngrams = ngram_hashes(tokenize_words(text), WORDS_PER_GRAM)
        code_ngrams = ngram_hashes(tokenize_code(text), CODE_TOKENS_PER_GRAM)
        for index, own in ((self._words, word_ngrams), (self._code, code_ngrams)):
            entries, scores = index.scores(own)
            is_specific = index.weight[entries] >= MIN_WORDS_WEIGHT
            for entry, score in zip(entries[is_specific].tolist(), scores[is_specific].tolist(), strict=True):
                number = index.entries[entry].problem
                task_id = self.problems[number].task_id
                shares[task_id] = max(shares.get(task_id, (0.0, number)), (score, number), key=lambda share: share[0])
        best = sorted(shares.values(), key=lambda share: (-share[0], share[1]))[:num]
        return [(self.problems[number], score) for score, number in best]

    def _word_matches(self, text: str) -> Iterator[tuple[int, ContaminationMatch]]:
        tokens = tokenize_words(text)
        yield from self._match_words(text, tokens, text)
        code = blank_comments(text)
        if code != text:  # a copy may contain added comments
            yield from self._match_words(text, tokenize_words(code), code)
        run = self._runs.find_first(long_runs(tokens))
        if run is not None:
            excerpt_ = _excerpt(text, tokens, run.first, run.first + RUN_WORDS)
            yield run.problem, self._match(run.problem, run.part, NGRAM, 1.0, excerpt_)

    def _match_words(self, text: str, tokens: Tokens, variant: str) -> Iterator[tuple[int, ContaminationMatch]]:
        """Match the words of `variant`, which is `text`, possibly with some characters replaced with spaces."""
        joined = ""
        for entry, match in self._words.find(ngram_hashes(tokens, WORDS_PER_GRAM), MIN_WORDS_SCORE):
            joined = joined or f" {' '.join(lower_case_words(variant))} "
            is_whole = bool(entry.whole) and entry.whole in joined
            is_renamed = bool(entry.pattern) and re.search(entry.pattern, joined) is not None
            if is_whole or is_renamed or self._words.weight[match.entry] >= MIN_WORDS_WEIGHT:
                excerpt_ = _excerpt(text, tokens, match.first, match.last + WORDS_PER_GRAM)
                tier = SUBSTRING if is_whole else NGRAM
                yield entry.problem, self._match(entry.problem, entry.part, tier, match.score, excerpt_)

    def _code_matches(self, text: str) -> Iterator[tuple[int, ContaminationMatch]]:
        without_hints = blank_type_hints(text)
        # A copy may have more or fewer type hints than the original solution.
        for variant in (text,) if without_hints == text else (text, without_hints):
            yield from self._match_code(text, variant)

    def _match_code(self, text: str, variant: str) -> Iterator[tuple[int, ContaminationMatch]]:
        """Match the code of `variant`, which is `text`, possibly with some characters replaced with spaces."""
        tokens = tokenize_code(variant)
        for entry, match in self._code.find(ngram_hashes(tokens, CODE_TOKENS_PER_GRAM), MIN_CODE_SCORE):
            weight = self._code.weight[match.entry]
            end = match.last + CODE_TOKENS_PER_GRAM
            is_whole = match.score > 0.999 and _ends_line(text, tokens, end)
            if weight >= SURE_CODE_WEIGHT or (weight >= MIN_CODE_WEIGHT and is_whole):
                excerpt_ = _excerpt(text, tokens, match.first, end)
                yield entry.problem, self._match(entry.problem, entry.part, CODE, match.score, excerpt_)

    def _match(self, number: int, part: str, tier: str, score: float, text: str) -> ContaminationMatch:
        problem = self.problems[number]
        return ContaminationMatch(
            tier=tier, benchmark=problem.benchmark, task_id=problem.task_id, part=part, score=score, text=text
        )


def _rank(match: ContaminationMatch) -> tuple[int, float]:
    return TIERS.index(match.tier), -match.score


def _ends_line(text: str, tokens: Tokens, end: int) -> bool:
    """Return whether a line of `text` ends between token `end - 1` and token `end`."""
    return end >= len(tokens.spans) or "\n" in text[tokens.spans[end - 1][1] : tokens.spans[end][0]]


def _excerpt(text: str, tokens: Tokens, first: int, end: int) -> str:
    """Return the start of the passage of `text` from token `first` up to, but excluding, token `end`."""
    return excerpt(text[tokens.spans[first][0] : tokens.spans[end - 1][1]], EXCERPT_LENGTH)
