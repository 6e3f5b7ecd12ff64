"""Measures of the diversity of a round's instructions, within the round and compared with earlier rounds.

Source: distinct-n is the number of distinct n-grams divided by the number of all n-grams (Li et al., arXiv 1510.03055). It
decreases as the sample grows, so compare only samples of equal size.
"""

import itertools
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

MAX_PAIRED = 64  # maximum number of instructions that are compared pairwise
NUM_DECIMALS = 4

_WORD = re.compile(r"\w+")


def split_words(text: str) -> list[str]:
    """Return the words of `text`, in lower case."""
    return _WORD.findall(text.lower())


def vocabulary(texts: Sequence[Sequence[str]]) -> frozenset[str]:
    """Return the distinct words of all texts, each given as a list of words."""
    return frozenset(itertools.chain.from_iterable(texts))


def measure_diversity(texts: Sequence[Sequence[str]], known: AbstractSet[str] | None) -> dict[str, float | None]:
    """Return the diversity measures of a sample of instructions; a measure is None if the sample is too small for it.

    Args:
        texts: the words of each instruction.
        known: the distinct words of earlier rounds; None for the first round.

    Returns:
        distinct_1 and distinct_2, the share of distinct words and word bigrams; mean_pairwise_jaccard, the mean Jaccard
        similarity of the bigram sets of two instructions, over all pairs of the first MAX_PAIRED instructions; and
        new_vocabulary, the share of distinct words that no earlier round contained.
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
