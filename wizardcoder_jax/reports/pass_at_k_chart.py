"""Geometry of the chart of pass@k over k. templates/charts.html draws the chart, and page.css colors it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 640, 280  # size of the chart in SVG units
LEFT, RIGHT, TOP, BOTTOM = 46, 626, 12, 246  # edges of the plot area in SVG units
NUM_COLORS = 6  # number of line colors: .series-0 to .series-5 in page.css


class CurvePoint(NamedTuple):
    """pass@k for one k, with the ends of its 95 % interval."""

    k: int
    rate: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChartLine:
    """One curve of the chart.

    Attributes:
        name: name in the legend.
        color: index of the color, less than NUM_COLORS.
        dots: (x, y, point) for each k.
        line: the curve, as the `points` of an SVG polyline.
        band: outline of the 95 % intervals, as the `points` of an SVG polygon; empty for a single point.
    """

    name: str
    color: int
    dots: Sequence[tuple[float, float, CurvePoint]]
    line: str
    band: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassAtKChart:
    """The chart: its curves, and (coordinate, label) of each grid line of both axes."""

    lines: Sequence[ChartLine]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    description: str  # text alternative for screen readers


def layout_pass_at_k(curves: Sequence[tuple[str, Sequence[CurvePoint]]]) -> PassAtKChart:
    """Lay out one line per curve, with k on a logarithmic axis.

    Args:
        curves: (name, points sorted by k) of each curve; at least one curve has two points.
    """
    ks = sorted({point.k for _, points in curves for point in points})
    lines = []
    for i, (name, points) in enumerate(curves):
        upper = [(_x(p.k, ks[-1]), _y(p.high)) for p in points]
        lower = [(_x(p.k, ks[-1]), _y(p.low)) for p in reversed(points)]
        dots = [(_x(p.k, ks[-1]), _y(p.rate), p) for p in points]
        line = _svg_points([(x, y) for x, y, _ in dots])
        band = _svg_points([*upper, *lower]) if len(points) > 1 else ""
        lines.append(ChartLine(name=name, color=i % NUM_COLORS, dots=dots, line=line, band=band))
    return PassAtKChart(
        lines=lines,
        x_ticks=[(_x(k, ks[-1]), str(k)) for k in ks],
        y_ticks=[(_y(rate), f"{100 * rate:.0f} %") for rate in (0, 0.25, 0.5, 0.75, 1)],
        description="; ".join(
            f"{name}: " + ", ".join(f"pass@{p.k} {100 * p.rate:.1f} %" for p in points) for name, points in curves
        ),
    )


def _x(k: int, largest_k: int) -> float:
    return round(LEFT + (RIGHT - LEFT) * math.log(k) / math.log(largest_k), 1)


def _y(rate: float) -> float:
    return round(TOP + (BOTTOM - TOP) * (1 - rate), 1)


def _svg_points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
