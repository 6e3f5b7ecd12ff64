"""A histogram of lengths with fixed bins: as small for a million texts as for ten."""

import math
from collections import Counter
from typing import Any

BINS_PER_OCTAVE = 4
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


class LengthHistogram:
    """Lengths in characters; bin b holds those from 2 ** (b / BINS_PER_OCTAVE), bin 0 also empty texts."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self._total = 0

    def add(self, length: int) -> None:
        """Counts a text."""
        self._bins[int(math.log2(length) * BINS_PER_OCTAVE + 1e-9) if length > 1 else 0] += 1
        self._total += length

    def to_json(self) -> dict[str, Any]:
        """Mean (exact), quantiles (from the bins, within 10 %) and the bins as [first length, number]; None of no text."""
        number = self._bins.total()
        quantiles = {name: self._quantile(share) for name, share in QUANTILES.items()}
        return {
            "mean": round(self._total / number, 1) if number else None,
            **quantiles,
            "histogram": [[_first(bin_), self._bins[bin_]] for bin_ in sorted(self._bins)],
        }

    def _quantile(self, share: float) -> int | None:
        before, wanted = 0, share * self._bins.total()
        for bin_ in sorted(self._bins):
            if before + self._bins[bin_] >= wanted:
                return round(2 ** ((bin_ + (wanted - before) / self._bins[bin_]) / BINS_PER_OCTAVE))
            before += self._bins[bin_]
        return None


def _first(bin_: int) -> int:
    return 0 if bin_ == 0 else math.ceil(2 ** (bin_ / BINS_PER_OCTAVE) - 1e-9)
