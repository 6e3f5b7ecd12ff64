"""An n-gram index of short texts, which finds those that a longer text contains almost completely in one passage.

An index entry is one text of a benchmark problem, tokenized as words or as code. The score of an entry for a record is the
share of the entry's n-grams that the record contains. Each n-gram is weighted by how specific it is: log(number of entries /
number of entries that contain the n-gram). Scaled MinHash (FracMinHash, Irber et al. 2022) estimates this containment from a
sample of the hashes; benchmarks are small enough to keep all hashes.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from wizardcoder_jax.evol_instruct.contamination.lexing import Hashes

MAX_COMMON_SHARE = 0.05  # n-grams in a larger share of the entries are ignored as stock phrases of the benchmark
MIN_COMMON = 10  # n-grams in at most this many entries are never ignored as stock phrases
MIN_ENTRIES = 2000  # minimum number of entries assumed in weights: few entries do not show which n-grams are common
MIN_WEIGHT = 1.0  # minimum weight of an n-gram in `locate`, so that common n-grams count too
WINDOW_GROWTH = 1.5  # maximum length of a copy relative to the original: a copy may add comments, type hints or lines
WINDOW_EXTRA_TOKENS = 16  # number of tokens added to the maximum length of a copy

_NO_NGRAM = np.zeros(1, np.uint64)  # the hash 0 marks a position without a usable n-gram


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """One text of a problem, tokenized as words or as code.

    Attributes:
        problem: index of the problem.
        part: part of the problem: "statement", "prompt" or "solution".
        ngrams: hashes of the n-grams of the text, in order; 0 at positions without a usable n-gram.
        whole: the words of the text, separated and surrounded by single spaces; empty to disable substring matching.
        pattern: regular expression of the words with gaps in place of identifiers; empty if the text has none.
    """

    problem: int
    part: str
    ngrams: Hashes
    whole: str = ""
    pattern: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexMatch:
    """An entry found in a text."""

    entry: int  # index of the entry
    score: float  # weighted share of the entry's n-grams that the passage contains, at most 1
    first: int  # position in the text of the first n-gram of the passage
    last: int  # position in the text of the last n-gram of the passage


class NgramIndex:
    """Index that searches a text for entries by their n-grams.

    Args:
        entries: the texts to search for.
        boilerplate: hashes of n-grams to ignore.
    """

    def __init__(self, entries: Sequence[IndexEntry], boilerplate: Hashes | None = None) -> None:
        self.entries = entries
        ignored = _NO_NGRAM if boilerplate is None else np.append(boilerplate, _NO_NGRAM)
        hashes = [np.setdiff1d(entry.ngrams, ignored) for entry in entries]
        # Entries with equal n-grams count once: several benchmark files may contain the same problem.
        counts = Counter(h for content in {own.tobytes(): own for own in hashes}.values() for h in content.tolist())
        num_distinct = len({own.tobytes() for own in hashes})
        postings = sorted((h, i) for i, own in enumerate(hashes) for h in own.tolist())
        common = {h for h, count in counts.items() if count > max(MAX_COMMON_SHARE * num_distinct, MIN_COMMON)}
        postings = [(h, i) for h, i in postings if h not in common]
        self._posted_entries = np.array([i for _, i in postings], np.int64)
        self._ngrams, self._starts = np.unique(np.array([h for h, _ in postings], np.uint64), return_index=True)
        self._counts = np.diff(np.append(self._starts, len(postings)))
        num_entries = max(num_distinct, MIN_ENTRIES)
        self._weights = np.array([math.log(num_entries / counts[h]) for h in self._ngrams.tolist()])
        # Total n-gram weight of each entry.
        self.weight = np.bincount(self._posted_entries, np.repeat(self._weights, self._counts), len(entries))

    def find(self, ngrams: Hashes, min_score: float) -> Iterator[tuple[IndexEntry, IndexMatch]]:
        """Yield every entry whose score in some passage of a text is at least `min_score`, with the match.

        Args:
            ngrams: hashes of the n-grams of the text, in order.
            min_score: minimum score, from 0 to 1.
        """
        entries, scores = self.scores(ngrams)
        for entry in entries[scores >= min_score].tolist():
            match = self.locate(ngrams, entry)
            if match.score >= min_score:
                yield self.entries[entry], match

    def scores(self, ngrams: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the indices of the entries that share any n-gram with a text, and their scores in the whole text."""
        found = intersect_sorted(self._ngrams, np.unique(ngrams))[1]
        if not len(found):
            return np.zeros(0, np.int64), np.zeros(0)
        entries = self._posted_entries[_ranges(self._starts[found], self._counts[found])]
        gained = np.bincount(entries, np.repeat(self._weights[found], self._counts[found]), len(self.entries))
        touched = np.flatnonzero(gained)
        return touched, gained[touched] / self.weight[touched]

    def locate(self, ngrams: Hashes, entry: int) -> IndexMatch:
        """Find the passage of a text with the highest score for an entry; common n-grams count too.

        Args:
            ngrams: hashes of the n-grams of the text, in order.
            entry: index of the entry.
        """
        own = np.setdiff1d(self.entries[entry].ngrams, _NO_NGRAM)
        weights = np.full(len(own), MIN_WEIGHT)
        indexed, index_positions = intersect_sorted(self._ngrams, own)
        weights[indexed] = np.maximum(self._weights[index_positions], MIN_WEIGHT)
        positions, found = intersect_sorted(own, ngrams)
        width = int(len(self.entries[entry].ngrams) * WINDOW_GROWTH) + WINDOW_EXTRA_TOKENS
        best, gained, start, inside = (0.0, 0, 0), 0.0, 0, Counter[int]()
        for end, ngram in enumerate(found.tolist()):
            gained += 0.0 if inside[ngram] else float(weights[ngram])
            inside[ngram] += 1
            while positions[end] - positions[start] >= width:
                dropped = int(found[start])
                inside[dropped] -= 1
                gained -= 0.0 if inside[dropped] else float(weights[dropped])
                start += 1
            if gained > best[0] + 1e-9:
                best = (gained, int(positions[start]), int(positions[end]))
        return IndexMatch(entry=entry, score=min(best[0] / float(weights.sum()), 1.0), first=best[1], last=best[2])


def intersect_sorted(known: Hashes, queries: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions in `queries` of the values that are also in `known`, and their positions in `known`.

    Args:
        known: sorted distinct values.
        queries: values in any order.
    """
    if not len(known):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    positions = np.minimum(np.searchsorted(known, queries), len(known) - 1)
    in_both = np.flatnonzero(known[positions] == queries)
    return in_both, positions[in_both]


def _ranges(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Concatenate the ranges start, start + 1, ..., start + count - 1 of all pairs of `starts` and `counts`."""
    shifts = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return shifts + np.arange(int(counts.sum()))
