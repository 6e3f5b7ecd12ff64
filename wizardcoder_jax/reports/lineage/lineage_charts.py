"""Geometry of the lineage page's charts: filter funnel, methods and text lengths. templates/lineage.html draws them."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from wizardcoder_jax.reports.lineage.lineage_counts import BINS_PER_OCTAVE, LineageCounts, RoundCounts

WIDTH = 640  # width of a chart in SVG units
_ROW_HEIGHT = 64  # height of one histogram
_LEFT, _RIGHT = 84, 12  # left and right margins of the histograms
_BAR_LEFT, _BAR_RIGHT = 150, 170  # margins of the method chart: names on the left, counts on the right


def percent(part: int, whole: int) -> str:
    """Format the fraction `part / whole` as a percentage; "-" if `whole` is 0."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FunnelCell:
    """One step of the funnel in one round."""

    number: int  # number of records in the pool, rejected by the rule, or kept
    share: str  # `number` as a percentage of the round's pool
    percent_left: float  # percentage of the pool that is left after the step


@dataclasses.dataclass(frozen=True, kw_only=True)
class FunnelRow:
    """One step of the funnel: the pool, a rule (`rule` is its index), or the kept records."""

    name: str
    rule: int | None
    cells: Sequence[FunnelCell]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Funnel:
    """Table of the filter funnel: a row for each step and a column for each round."""

    rounds: Sequence[str]
    rows: Sequence[FunnelRow]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodBar:
    """Evolutions by one method: a bar for the kept ones, followed by a bar for the rejected ones."""

    y: int
    name: str
    label: str
    kept_width: float
    rejected_width: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodChart:
    """Chart with a bar for each method."""

    width: int = WIDTH
    height: int
    left: int = _BAR_LEFT  # x coordinate where the bars start
    bars: Sequence[MethodBar]
    description: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class HistogramBar:
    """Bar for the records whose text length falls in one bin."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundHistogram:
    """Histogram of the text lengths in one round."""

    name: str
    base: int  # y coordinate of the horizontal axis
    median_x: float
    bars: Sequence[HistogramBar]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthChart:
    """Chart with a histogram for each round, over a common axis of lengths."""

    label: str
    width: int = WIDTH
    height: int
    left: int = _LEFT  # x coordinates of the ends of the axis
    right: int = WIDTH - _RIGHT
    row_height: int = _ROW_HEIGHT
    ticks: Sequence[tuple[float, str]]  # (x, number of characters)
    histograms: Sequence[RoundHistogram]
    description: str


def build_funnel(counts: LineageCounts) -> Funnel:
    """Build the funnel: the size of each round's pool, how many records each rule rejected, and how many were kept."""
    rounds = counts.rounds.values()
    rows = [FunnelRow(name="pool", rule=None, cells=[_funnel_cell(entry.pool, entry.pool, entry.pool) for entry in rounds])]
    left = [entry.pool for entry in rounds]
    for i, rule in enumerate(counts.rules):
        left = [number - entry.rejected[rule] for number, entry in zip(left, rounds, strict=True)]
        cells = [_funnel_cell(entry.rejected[rule], number, entry.pool) for number, entry in zip(left, rounds, strict=True)]
        rows.append(FunnelRow(name=rule, rule=i, cells=cells))
    rows.append(FunnelRow(name="kept", rule=None, cells=[_funnel_cell(entry.kept, entry.kept, entry.pool) for entry in rounds]))
    return Funnel(rounds=[_round_name(number) for number in counts.rounds], rows=rows)


def _funnel_cell(number: int, left: int, pool: int) -> FunnelCell:
    return FunnelCell(number=number, share=percent(number, pool), percent_left=round(100 * left / pool if pool else 0, 2))


def _round_name(number: int) -> str:
    return "seeds" if number == 0 else f"round {number}"


def build_method_chart(counts: LineageCounts, names: Mapping[int, str]) -> MethodChart | None:
    """Build the chart of kept and rejected evolutions by method; return None if the run has no evolutions."""
    kept, rejected = Counter[int](), Counter[int]()
    for round_ in counts.rounds.values():
        kept += round_.kept_by_method
        rejected += round_.rejected_by_method
    total = kept + rejected
    if not total:
        return None
    scale = (WIDTH - _BAR_LEFT - _BAR_RIGHT) / max(total.values())
    bars = [
        MethodBar(
            y=8 + 30 * i,
            name=names.get(number, f"method {number}"),
            label=f"{kept[number]:,} kept, {percent(kept[number], total[number])}",
            kept_width=round(kept[number] * scale, 1),
            rejected_width=round(rejected[number] * scale, 1),
        )
        for i, number in enumerate(sorted(total))
    ]
    return MethodChart(height=30 * len(bars) + 12, bars=bars, description="; ".join(f"{bar.name}: {bar.label}" for bar in bars))


def build_length_chart(counts: LineageCounts, field: str, label: str) -> LengthChart | None:
    """Build the chart with a histogram of text lengths for each round; return None if no record was kept.

    Args:
        counts: counts of the run.
        field: field of RoundCounts that has the histogram.
        label: name of the measured texts in the caption.
    """
    rounds = {number: entry for number, entry in counts.rounds.items() if entry.kept}
    if not rounds:
        return None
    bins = [bin_ for entry in rounds.values() for bin_ in getattr(entry, field)]
    first, last = min(bins), max(bins) + 1
    step = (WIDTH - _LEFT - _RIGHT) / (last - first)
    octaves_per_tick = 1 if last - first <= 16 else 2
    histograms = [
        _histogram(getattr(entry, field), entry, (i + 1) * _ROW_HEIGHT, first, step, _round_name(number))
        for i, (number, entry) in enumerate(rounds.items())
    ]
    medians = [f"{_round_name(number)}: median about {_median(getattr(entry, field)):,}" for number, entry in rounds.items()]
    return LengthChart(
        label=label,
        height=len(rounds) * _ROW_HEIGHT,
        ticks=[
            (round(_LEFT + (bin_ - first) * step, 1), f"{2 ** (bin_ // BINS_PER_OCTAVE):,}")
            for bin_ in range(first, last + 1)
            if bin_ % (octaves_per_tick * BINS_PER_OCTAVE) == 0
        ],
        histograms=histograms,
        description="; ".join(f"{median} characters" for median in medians),
    )


def _histogram(histogram: Counter[int], entry: RoundCounts, base: int, first: int, step: float, name: str) -> RoundHistogram:
    largest = max(histogram.values())
    bars = []
    for bin_, number in sorted(histogram.items()):
        height = round((_ROW_HEIGHT - 14) * number / largest, 1)
        lengths = f"{_first_length(bin_):,} to {_first_length(bin_ + 1) - 1:,} characters"
        bars.append(
            HistogramBar(
                x=round(_LEFT + (bin_ - first) * step + 0.75, 1),
                y=round(base - height, 1),
                width=round(step - 1.5, 1),
                height=height,
                title=f"{name}, {lengths}: {number:,} ({percent(number, entry.kept)})",
            )
        )
    median_x = round(_LEFT + (_median_bin(histogram) - first + 0.5) * step, 1)
    return RoundHistogram(name=name, base=base, median_x=median_x, bars=bars)


def _first_length(bin_: int) -> int:
    return 0 if bin_ == 0 else -int(-(2 ** (bin_ / BINS_PER_OCTAVE)) // 1)


def _median_bin(histogram: Counter[int]) -> int:
    before, half = 0, histogram.total() / 2
    for bin_ in sorted(histogram):
        before += histogram[bin_]
        if before >= half:
            return bin_
    return 0


def _median(histogram: Counter[int]) -> int:
    return round(2 ** ((_median_bin(histogram) + 0.5) / BINS_PER_OCTAVE))
