"""An index of texts by their n-grams: it finds those that a longer text holds, nearly whole and in one place.

A row is one reading of one text of a problem. Its score in a record is the share of its n-grams that the record holds,
weighted by how telling each is: log of (rows / rows that have it). This is the containment that a scaled MinHash
(FracMinHash, Irber et al. 2022) estimates from a sample of the hashes; a benchmark's are few enough to keep them all.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from wizardcoder_jax.evol_instruct.contamination.lexing import Hashes

MAX_COMMON_SHARE = 0.05  # n-grams that more rows share are a benchmark's turns of phrase, and say nothing
MIN_COMMON = 10  # ... where they are more than so many
LEAST_ROWS = 2000  # so many rows at least are counted: with few problems, nothing says what is common
LEAST_WEIGHT = 1.0  # of an n-gram in the place where it is looked for: a copy holds the stock phrases too
WINDOW_GROWTH = 1.5  # a copy may be so much longer than its original: comments, type hints, lines in between
WINDOW_EXTRA_TOKENS = 16

_NONE = np.zeros(1, np.uint64)  # where a run of tokens makes no n-gram


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """One text of a problem, read one way.

    Attributes:
        problem: number of the problem it belongs to.
        part: of the problem: statement, prompt, solution.
        ngrams: hashes of its n-grams, in order; 0 where there is none.
        whole: its words with one space around each, where it may be found so; else empty.
        pattern: the same as a regular expression with holes where names are; else empty.
    """

    problem: int
    part: str
    ngrams: Hashes
    whole: str = ""
    pattern: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexMatch:
    """A row found in a text: how much of it, and from which n-gram to which."""

    row: int
    score: float
    first: int
    last: int


class NgramIndex:
    """Finds rows by n-grams.

    Args:
        rows: what is looked for.
        stock: n-grams that say nothing.
    """

    def __init__(self, rows: Sequence[IndexEntry], stock: Hashes | None = None) -> None:
        self.rows = rows
        saying_nothing = _NONE if stock is None else np.append(stock, _NONE)
        hashes = [np.setdiff1d(row.ngrams, saying_nothing) for row in rows]
        # Copies of one problem in several files count once.
        counts = Counter(h for content in {own.tobytes(): own for own in hashes}.values() for h in content.tolist())
        num_distinct = len({own.tobytes() for own in hashes})
        posted = sorted((h, i) for i, own in enumerate(hashes) for h in own.tolist())
        common = {h for h, count in counts.items() if count > max(MAX_COMMON_SHARE * num_distinct, MIN_COMMON)}
        posted = [(h, i) for h, i in posted if h not in common]
        self._rows = np.array([i for _, i in posted], np.int64)
        self._grams, self._starts = np.unique(np.array([h for h, _ in posted], np.uint64), return_index=True)
        self._counts = np.diff(np.append(self._starts, len(posted)))
        num_rows = max(num_distinct, LEAST_ROWS)
        self._weights = np.array([math.log(num_rows / counts[h]) for h in self._grams.tolist()])
        self.weight = np.bincount(self._rows, np.repeat(self._weights, self._counts), len(rows))  # of each row, in all

    def found(self, grams: Hashes, min_score: float) -> Iterator[tuple[IndexEntry, IndexMatch]]:
        """The rows of which a text holds at least `min_score` in one place."""
        rows, scores = self.scores(grams)
        for row in rows[scores >= min_score].tolist():
            match = self.locate(grams, row)
            if match.score >= min_score:
                yield self.rows[row], match

    def scores(self, grams: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """(rows, score of each): those that share any n-gram with a text."""
        found = intersect_sorted(self._grams, np.unique(grams))[1]
        if not len(found):
            return np.zeros(0, np.int64), np.zeros(0)
        rows = self._rows[_ranges(self._starts[found], self._counts[found])]
        gained = np.bincount(rows, np.repeat(self._weights[found], self._counts[found]), len(self.rows))
        touched = np.flatnonzero(gained)
        return touched, gained[touched] / self.weight[touched]

    def locate(self, grams: Hashes, row: int) -> IndexMatch:
        """Where in a text a row is densest, and its score there, n-grams that say little included."""
        own = np.setdiff1d(self.rows[row].ngrams, _NONE)
        weights = np.full(len(own), LEAST_WEIGHT)
        telling, places_of = intersect_sorted(self._grams, own)
        weights[telling] = np.maximum(self._weights[places_of], LEAST_WEIGHT)
        places, found = intersect_sorted(own, grams)
        width = int(len(self.rows[row].ngrams) * WINDOW_GROWTH) + WINDOW_EXTRA_TOKENS
        best, gained, start, inside = (0.0, 0, 0), 0.0, 0, Counter[int]()
        for end, gram in enumerate(found.tolist()):
            gained += 0.0 if inside[gram] else float(weights[gram])
            inside[gram] += 1
            while places[end] - places[start] >= width:
                dropped = int(found[start])
                inside[dropped] -= 1
                gained -= 0.0 if inside[dropped] else float(weights[dropped])
                start += 1
            if gained > best[0] + 1e-9:
                best = (gained, int(places[start]), int(places[end]))
        return IndexMatch(row=row, score=min(best[0] / float(weights.sum()), 1.0), first=best[1], last=best[2])


def intersect_sorted(known: Hashes, asked: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(places in `asked`, places in the sorted `known`) of what is in both."""
    if not len(known):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    places = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    in_both = np.flatnonzero(known[places] == asked)
    return in_both, places[in_both]


def _ranges(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """start, start + 1, ... count times, for each start."""
    shifts = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return shifts + np.arange(int(counts.sum()))
