"""pass@k: the unbiased estimate for one problem, the mean over problems, and a bootstrap confidence interval of the mean."""

from collections.abc import Sequence

import numpy as np

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95


def estimate_pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the unbiased estimate of pass@k: the probability that at least one of k samples is correct.

    The k samples are drawn without replacement from n samples, c of which are correct. The probability is
    1 - prod(1 - k / arange(n - c + 1, n + 1)), or 1 if n - c < k.
    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", section 2.1 and figure 3.

    Raises:
        ValueError: k is not in [1, n], or c not in [0, n].
    """
    if not 1 <= k <= num_samples or not 0 <= num_correct <= num_samples:
        raise ValueError(f"pass@{k} is not defined for {num_correct} correct of {num_samples} samples")
    if num_samples - num_correct < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(num_samples - num_correct + 1, num_samples + 1)))


def mean_pass_at_k(counts: Sequence[tuple[int, int]], k: int) -> tuple[float, tuple[float, float]]:
    """Return the mean pass@k over problems, and its 95 % confidence interval.

    The interval is a percentile bootstrap over problems with a fixed seed: it shows how the mean would vary with other
    problems of the same kind. It does not account for sampling noise within a problem, which matters if there are few samples.

    Args:
        counts: (num_samples, num_correct) of each problem.
        k: the k of pass@k.

    Returns:
        The mean, and the (low, high) bounds of the interval.
    """
    values = np.array([estimate_pass_at_k(n, c, k) for n, c in counts])
    rng = np.random.default_rng(0)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(values.mean()), (float(low), float(high))
