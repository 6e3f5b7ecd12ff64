"""An index of texts by their n-grams, which finds the texts that a longer text contains almost completely in one place.

An entry is one text of a benchmark problem, tokenized in one way. Its score in a record is the share of its n-grams that the
record contains, each weighted by how specific it is: log(entries / entries that contain it). This is the containment that a
scaled MinHash (FracMinHash, Irber et al. 2022) estimates from a sample of the hashes; a benchmark has few enough to keep all.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from wizardcoder_jax.evol_instruct.contamination.lexing import Hashes

MAX_COMMON_SHARE = 0.05  # n-grams in a larger share of the entries are phrases of the benchmark and are ignored, ...
MIN_COMMON = 10  # ... provided that more than MIN_COMMON entries contain them
MIN_ENTRIES = 2000  # assumed size of a smaller index: a few problems alone do not show which n-grams are common
MIN_WEIGHT = 1.0  # minimum weight of an n-gram in `locate`, because a copy contains the common phrases too
WINDOW_GROWTH = 1.5  # a copy may be longer than its original by this factor: comments, type hints, lines in between
WINDOW_EXTRA_TOKENS = 16

_NO_NGRAM = np.zeros(1, np.uint64)  # the hash of a run of tokens that forms no n-gram


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """One text of a problem, tokenized in one way.

    Attributes:
        problem: index of its problem.
        part: part of the problem: statement, prompt or solution.
        ngrams: hashes of its n-grams, in order; 0 where a run of tokens forms no n-gram.
        whole: its words with one space around each, if it can be matched as a substring; else empty.
        pattern: the same as a regular expression with gaps in place of names; else empty.
    """

    problem: int
    part: str
    ngrams: Hashes
    whole: str = ""
    pattern: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexMatch:
    """An entry found in a text: its index, its score, and the positions of the first and the last n-gram of the match."""

    entry: int
    score: float
    first: int
    last: int


class NgramIndex:
    """Search for entries by their n-grams.

    Args:
        entries: the texts to search for.
        boilerplate: n-grams to ignore.
    """

    def __init__(self, entries: Sequence[IndexEntry], boilerplate: Hashes | None = None) -> None:
        self.entries = entries
        ignored = _NO_NGRAM if boilerplate is None else np.append(boilerplate, _NO_NGRAM)
        hashes = [np.setdiff1d(entry.ngrams, ignored) for entry in entries]
        # Copies of one problem in several files count once.
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
        # Total weight of each entry.
        self.weight = np.bincount(self._posted_entries, np.repeat(self._weights, self._counts), len(entries))

    def find(self, ngrams: Hashes, min_score: float) -> Iterator[tuple[IndexEntry, IndexMatch]]:
        """Yield the entries of which a text contains a share of at least `min_score` in one place."""
        entries, scores = self.scores(ngrams)
        for entry in entries[scores >= min_score].tolist():
            match = self.locate(ngrams, entry)
            if match.score >= min_score:
                yield self.entries[entry], match

    def scores(self, ngrams: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the indices of the entries that share any n-gram with a text, and their scores."""
        found = intersect_sorted(self._ngrams, np.unique(ngrams))[1]
        if not len(found):
            return np.zeros(0, np.int64), np.zeros(0)
        entries = self._posted_entries[_ranges(self._starts[found], self._counts[found])]
        gained = np.bincount(entries, np.repeat(self._weights[found], self._counts[found]), len(self.entries))
        touched = np.flatnonzero(gained)
        return touched, gained[touched] / self.weight[touched]

    def locate(self, ngrams: Hashes, entry: int) -> IndexMatch:
        """Find the part of a text where an entry is densest, and score it there; common n-grams count too."""
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
    """Return (positions in `queries`, positions in the sorted array `known`) of the values in both."""
    if not len(known):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    positions = np.minimum(np.searchsorted(known, queries), len(known) - 1)
    in_both = np.flatnonzero(known[positions] == queries)
    return in_both, positions[in_both]


def _ranges(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return start, start + 1, ..., start + count - 1 of all pairs, concatenated."""
    shifts = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return shifts + np.arange(int(counts.sum()))
