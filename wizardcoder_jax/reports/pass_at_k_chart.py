"""Charts as inline SVG: pass@k against k, with bands for the 95 % intervals; colours come from the page's style."""

import math
from collections.abc import Sequence

from wizardcoder_jax.reports.html_escape import short

Point = tuple[int, float, float, float]  # k, pass@k, low, high

WIDTH, HEIGHT = 640, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 34
NUM_COLOURS = 6  # .series-0 to .series-5 in page.css


def pass_at_k_chart(series: Sequence[tuple[str, Sequence[Point]]]) -> str:
    """A figure with one line a series; k is on a logarithmic axis.

    Args:
        series: (name, points by ascending k); at least one has two points.
    """
    largest = max(k for _, points in series for k, *_ in points)
    ks = sorted({k for _, points in series for k, *_ in points})

    def x(k: int) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * math.log(k) / math.log(largest)

    def y(rate: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - rate)

    parts = [_grid(ks, x, y)]
    for i, (name, points) in enumerate(series):
        line = " ".join(f"{x(k):.1f},{y(mean):.1f}" for k, mean, _, _ in points)
        upper = [f"{x(k):.1f},{y(high):.1f}" for k, _, _, high in points]
        lower = [f"{x(k):.1f},{y(low):.1f}" for k, _, low, _ in reversed(points)]
        dots = "".join(
            f'<circle cx="{x(k):.1f}" cy="{y(mean):.1f}" r="3.5"><title>{short(name)}: pass@{k} {100 * mean:.1f} % '
            f"[{100 * low:.1f}, {100 * high:.1f}]</title></circle>"
            for k, mean, low, high in points
        )
        band = f'<polygon class="band" points="{" ".join([*upper, *lower])}"/>' if len(points) > 1 else ""
        parts.append(f'<g class="series-{i % NUM_COLOURS}">{band}<polyline points="{line}"/>{dots}</g>')
    said = "; ".join(f"{name}: " + ", ".join(f"pass@{k} {100 * m:.1f} %" for k, m, *_ in points) for name, points in series)
    picture = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{short(said, 2000)}">{"".join(parts)}</svg>'
    legend = "".join(f'<li class="series-{i % NUM_COLOURS}">{short(name)}</li>' for i, (name, _) in enumerate(series))
    caption = "pass@k against k (logarithmic), with 95 % intervals"
    return f'<figure>{picture}<figcaption>{caption}<ul class="legend">{legend}</ul></figcaption></figure>'


def _grid(ks, x, y) -> str:  # noqa: ANN001 (two functions from a value to a place)
    lines = [
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(rate):.1f}" y2="{y(rate):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y(rate) + 4:.1f}" text-anchor="end">{100 * rate:.0f} %</text>'
        for rate in (0, 0.25, 0.5, 0.75, 1)
    ]
    marks = [
        f'<line class="grid" x1="{x(k):.1f}" x2="{x(k):.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        f'<text x="{x(k):.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{k}</text>'
        for k in ks
    ]
    return f'<g class="axes">{"".join([*lines, *marks])}</g>'


def interval_bar(rate: float, low: float, high: float, series: int) -> str:
    """A small bar from 0 to 100 % with a dot at `rate` and a line over its interval; for a table cell."""
    return (
        f'<svg class="bar series-{series % NUM_COLOURS}" viewBox="-5 0 110 12" aria-hidden="true">'
        f'<line class="track" x1="0" x2="100" y1="6" y2="6"/><line class="whisker" x1="{100 * low:.1f}" x2="{100 * high:.1f}" '
        f'y1="6" y2="6"/><circle cx="{100 * rate:.1f}" cy="6" r="4"/></svg>'
    )
