"""One epoch of a mixture: how often each example of each task occurs, so that the rates hold."""

from collections.abc import Sequence

import numpy as np

from wizardcoder_jax.core.errors import InputError

# Examples per epoch. A longer epoch means that a rate is a mistake, and packing it would take hours.
MAX_EPOCH_EXAMPLES = 100_000_000


def repeats_per_example(sizes: Sequence[int], rates: Sequence[float], seed: int) -> list[np.ndarray]:
    """Return how many times each example occurs in one epoch of the mixture.

    The task that is largest relative to its rate occurs exactly once; the others are repeated until the rates hold, each to
    within half an example. A fractional repeat consists of examples drawn without replacement.

    Args:
        sizes: number of examples of each task, at least 1.
        rates: of each task, above 0, on any scale.
        seed: of the draw.

    Returns:
        int64 [size] for each task.

    Raises:
        InputError: the epoch would be absurdly long.
    """
    scale = max(size / rate for size, rate in zip(sizes, rates, strict=True))
    totals = [rate * scale for rate in rates]
    if sum(totals) > MAX_EPOCH_EXAMPLES:
        raise InputError(
            f"an epoch of the mixture would repeat its smaller tasks until it has {sum(totals):.3g} examples "
            f"(sizes {list(sizes)}, rates {list(rates)}); raise the rate of the largest task or shorten it"
        )
    repeats = []
    for i, (size, total) in enumerate(zip(sizes, totals, strict=True)):
        whole, rest = divmod(round(total), size)
        counts = np.full(size, whole, np.int64)
        counts[np.random.default_rng((seed, i)).permutation(size)[:rest]] += 1
        repeats.append(counts)
    return repeats


def repeat_examples(repeats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the examples of an epoch, example e `repeats[e]` times, and which repetition each is (0, 1, ...).

    All first repetitions come first.
    """
    rounds = [np.flatnonzero(repeats > i) for i in range(int(repeats.max(initial=0)))]
    if not rounds:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(rounds), np.repeat(np.arange(len(rounds)), list(map(len, rounds)))
