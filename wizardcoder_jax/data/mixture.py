"""Computes how often each example occurs in one epoch of a mixture of tasks with given rates."""

from collections.abc import Sequence

import numpy as np

from wizardcoder_jax.core.errors import InputError

# Maximum number of examples per epoch. If an epoch is longer, a rate is probably a mistake, and packing would take hours.
MAX_EPOCH_EXAMPLES = 100_000_000


def repeats_per_example(sizes: Sequence[int], rates: Sequence[float], seed: int) -> list[np.ndarray]:
    """Return how many times each example occurs in one epoch of the mixture.

    Each example of the task with the highest ratio of size to rate occurs once. Other tasks are repeated until the numbers of
    examples are in proportion to the rates, rounded to whole examples. If a task has to be repeated a fractional number of
    times, the examples for the fraction are drawn without replacement.

    Args:
        sizes: number of examples of each task, at least 1.
        rates: rate of each task, above 0; only their ratios matter.
        seed: the seed of the draws.

    Returns:
        For each task, the number of occurrences of each example, int64 [size].

    Raises:
        InputError: the epoch would have more than MAX_EPOCH_EXAMPLES examples.
    """
    scale = max(size / rate for size, rate in zip(sizes, rates, strict=True))
    totals = [rate * scale for rate in rates]
    if sum(totals) > MAX_EPOCH_EXAMPLES:
        raise InputError(
            f"an epoch of the mixture would have {sum(totals):.3g} examples because small tasks are repeated "
            f"(sizes {list(sizes)}, rates {list(rates)}); raise the rate of the largest task, or remove examples from it"
        )
    repeats = []
    for i, (size, total) in enumerate(zip(sizes, totals, strict=True)):
        whole, rest = divmod(round(total), size)
        counts = np.full(size, whole, np.int64)
        counts[np.random.default_rng((seed, i)).permutation(size)[:rest]] += 1
        repeats.append(counts)
    return repeats


def repeat_examples(repeats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each example e `repeats[e]` times, and the number of each repetition (0, 1, ...).

    The order is by repetition: all first occurrences, then all second ones, and so on.
    """
    rounds = [np.flatnonzero(repeats > i) for i in range(int(repeats.max(initial=0)))]
    if not rounds:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(rounds), np.repeat(np.arange(len(rounds)), list(map(len, rounds)))
