"""One epoch of a mixture: how often each of its tasks' examples comes, so that the rates hold."""

from collections.abc import Sequence

import numpy as np

from wizardcoder_jax.core.errors import InputError

MAX_ITEMS = 100_000_000  # of an epoch; more is a rate that was not meant, and packing them would take hours


def repeats_per_example(sizes: Sequence[int], rates: Sequence[float], seed: int) -> list[np.ndarray]:
    """How many times each example comes in one epoch of the mixture.

    The task that is largest relative to its rate is seen exactly once; the others are repeated until the rates hold, each
    to within half an example. A fractional repeat takes examples drawn without replacement.

    Args:
        sizes: examples of each task, at least 1.
        rates: of each task, above 0; any scale.
        seed: of the draw.

    Returns:
        For each task [size] int64.

    Raises:
        InputError: the epoch would be absurdly long.
    """
    scale = max(size / rate for size, rate in zip(sizes, rates, strict=True))
    totals = [rate * scale for rate in rates]
    if sum(totals) > MAX_ITEMS:
        raise InputError(
            f"an epoch of the mixture would repeat its smaller tasks until it has {sum(totals):.3g} examples "
            f"(sizes {list(sizes)}, rates {list(rates)}); raise the rate of the largest task or shorten it"
        )
    times = []
    for i, (size, total) in enumerate(zip(sizes, totals, strict=True)):
        whole, rest = divmod(round(total), size)
        each = np.full(size, whole, np.int64)
        each[np.random.default_rng((seed, i)).permutation(size)[:rest]] += 1
        times.append(each)
    return times


def repeat_examples(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Example e `times[e]` times over, as (the examples, which time it is: 0, 1, ...), first times first."""
    rounds = [np.flatnonzero(times > again) for again in range(int(times.max(initial=0)))]
    if not rounds:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(rounds), np.repeat(np.arange(len(rounds)), list(map(len, rounds)))
