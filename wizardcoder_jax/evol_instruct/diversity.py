"""How much the instructions of a round differ: from one another, and from those of the rounds before.

Source: distinct-n is Li et al., arXiv 1510.03055 (different n-grams over all n-grams). It falls as a sample grows, so only
samples of one size compare.
"""

import itertools
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

MAX_PAIRED = 64  # instructions that are compared pair by pair
NUM_PLACES = 4

_WORD = re.compile(r"\w+")


def split_words(text: str) -> list[str]:
    """The words of `text`, in small letters."""
    return _WORD.findall(text.lower())


def vocabulary(texts: Sequence[Sequence[str]]) -> frozenset[str]:
    """The different words of texts."""
    return frozenset(itertools.chain.from_iterable(texts))


def measure_diversity(texts: Sequence[Sequence[str]], known: AbstractSet[str] | None) -> dict[str, float | None]:
    """Measures of a sample; None where the sample is too small to have one.

    Args:
        texts: the words of each instruction.
        known: words that earlier rounds had; None where there was none.

    Returns:
        distinct_1 and distinct_2; mean_pairwise_jaccard of the sets of two-word sequences (0: nothing shared) over the first
        MAX_PAIRED; new_vocabulary, the share of different words that earlier rounds lacked.
    """
    own = vocabulary(texts)
    pairs = [list(itertools.pairwise(text)) for text in texts]
    return {
        "distinct_1": _share(len(own), sum(map(len, texts))),
        "distinct_2": _share(len(set(itertools.chain.from_iterable(pairs))), sum(map(len, pairs))),
        "mean_pairwise_jaccard": _mean_jaccard([set(own_pairs) for own_pairs in pairs[:MAX_PAIRED]]),
        "new_vocabulary": None if known is None else _share(len(own - known), len(own)),
    }


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, NUM_PLACES) if whole else None


def _mean_jaccard(sets: Sequence[set[tuple[str, str]]]) -> float | None:
    total, num_compared = 0.0, 0
    for first, second in itertools.combinations(sets, 2):
        num_shared = len(first & second)
        total += num_shared / max(1, len(first) + len(second) - num_shared)
        num_compared += 1
    return _share(total, num_compared)
