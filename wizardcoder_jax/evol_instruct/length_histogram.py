"""A histogram of text lengths with fixed bins, so that memory does not grow with the number of texts."""

import math
from collections import Counter
from typing import Any

BINS_PER_OCTAVE = 4
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


class LengthHistogram:
    """Histogram of text lengths in characters. Bin b starts at 2 ** (b / BINS_PER_OCTAVE); bin 0 includes empty texts."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self._total = 0

    def add(self, length: int) -> None:
        """Count a text of `length` characters."""
        self._bins[int(math.log2(length) * BINS_PER_OCTAVE + 1e-9) if length > 1 else 0] += 1
        self._total += length

    def to_json(self) -> dict[str, Any]:
        """Return the mean, the quantiles of QUANTILES, and the non-empty bins as [minimum length, number of texts].

        The mean is exact; the quantiles are interpolated from the bins, with an error below 10 %. Both are None if there are no
        texts.
        """
        num_texts = self._bins.total()
        quantiles = {name: self._quantile(share) for name, share in QUANTILES.items()}
        return {
            "mean": round(self._total / num_texts, 1) if num_texts else None,
            **quantiles,
            "histogram": [[_min_length(bin_), self._bins[bin_]] for bin_ in sorted(self._bins)],
        }

    def _quantile(self, share: float) -> int | None:
        num_before, target = 0, share * self._bins.total()
        for bin_ in sorted(self._bins):
            if num_before + self._bins[bin_] >= target:
                return round(2 ** ((bin_ + (target - num_before) / self._bins[bin_]) / BINS_PER_OCTAVE))
            num_before += self._bins[bin_]
        return None


def _min_length(bin_: int) -> int:
    return 0 if bin_ == 0 else math.ceil(2 ** (bin_ / BINS_PER_OCTAVE) - 1e-9)
