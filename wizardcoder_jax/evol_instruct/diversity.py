"""Diversity of the instructions of a round: within the round, and compared with earlier rounds.

Source: distinct-n is from Li et al., arXiv 1510.03055 (distinct n-grams / all n-grams). It falls with the size of the sample,
so only samples of equal size can be compared.
"""

import itertools
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

MAX_PAIRED = 64  # instructions that are compared pairwise
NUM_DECIMALS = 4

_WORD = re.compile(r"\w+")


def split_words(text: str) -> list[str]:
    """Return the words of `text`, in lower case."""
    return _WORD.findall(text.lower())


def vocabulary(texts: Sequence[Sequence[str]]) -> frozenset[str]:
    """Return the distinct words of all texts."""
    return frozenset(itertools.chain.from_iterable(texts))


def measure_diversity(texts: Sequence[Sequence[str]], known: AbstractSet[str] | None) -> dict[str, float | None]:
    """Return measures of a sample; a measure is None if the sample is too small for it.

    Args:
        texts: the words of each instruction.
        known: the words of earlier rounds; None if there were none.

    Returns:
        distinct_1 and distinct_2; mean_pairwise_jaccard of the sets of word pairs (0: nothing in common) over the first
        MAX_PAIRED instructions; new_vocabulary, the share of distinct words that earlier rounds did not have.
    """
    own = vocabulary(texts)
    pairs = [list(itertools.pairwise(text)) for text in texts]
    return {
        "distinct_1": _ratio(len(own), sum(map(len, texts))),
        "distinct_2": _ratio(len(set(itertools.chain.from_iterable(pairs))), sum(map(len, pairs))),
        "mean_pairwise_jaccard": _mean_jaccard([set(own_pairs) for own_pairs in pairs[:MAX_PAIRED]]),
        "new_vocabulary": None if known is None else _ratio(len(own - known), len(own)),
    }


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, NUM_DECIMALS) if whole else None


def _mean_jaccard(sets: Sequence[set[tuple[str, str]]]) -> float | None:
    total, num_compared = 0.0, 0
    for first, second in itertools.combinations(sets, 2):
        num_shared = len(first & second)
        total += num_shared / max(1, len(first) + len(second) - num_shared)
        num_compared += 1
    return _ratio(total, num_compared)
