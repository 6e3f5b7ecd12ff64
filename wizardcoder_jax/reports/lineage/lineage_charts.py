"""Pictures of a run as inline SVG: what each rule left of a round, methods, lengths; colours come from the page's style."""

from collections import Counter
from collections.abc import Mapping, Sequence

from wizardcoder_jax.reports.html_escape import escaped, short
from wizardcoder_jax.reports.lineage.lineage_counts import BINS_PER_OCTAVE, LineageCounts, RoundCounts

_WIDTH, _ROW = 640, 64
_LEFT, _RIGHT = 84, 12


def percent(part: int, whole: int) -> str:
    """A share, "-" of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def funnel(counts: LineageCounts) -> str:
    """A table: each round's pool, what each rule dropped of it, and what was kept; the names of rules choose trees."""
    rounds = counts.rounds
    heads = "".join(f'<th scope="col" class="number">{"seeds" if n == 0 else f"round {n}"}</th>' for n in rounds)
    rows = [_funnel_row("pool", [(entry.pool, entry.pool, entry.pool) for entry in rounds.values()], is_drop=False)]
    left = {number: entry.pool for number, entry in rounds.items()}
    for i, rule in enumerate(counts.rules):
        cells = []
        for number, entry in rounds.items():
            left[number] -= entry.rejected[rule]
            cells.append((entry.rejected[rule], left[number], entry.pool))
        name = f'<button type="button" class="rule" data-rule="{i}">{short(rule, 60)}</button>'
        rows.append(_funnel_row(name, cells, is_drop=True))
    rows.append(_funnel_row("kept", [(entry.kept, entry.kept, entry.pool) for entry in rounds.values()], is_drop=False))
    return (
        f'<div class="wide" tabindex="0"><table class="funnel"><thead><tr><th scope="col">step</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _funnel_row(name: str, cells: Sequence[tuple[int, int, int]], *, is_drop: bool) -> str:
    """Cells are (number, what is left after the step, the pool)."""
    shown = []
    for number, left, pool in cells:
        share = 100 * left / pool if pool else 0
        bar = (
            '<svg class="left" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="track" width="100" height="4"/><rect class="kept" width="{share:.2f}" height="4"/></svg>'
        )
        sign = "\u2212" if is_drop and number else ""
        value = f'{sign}{number:,} <span class="interval">{percent(number, pool)}</span>' if number or not is_drop else "0"
        shown.append(f'<td class="number">{value}{bar if number or not is_drop else ""}</td>')
    return f'<tr class="{"drop" if is_drop else "whole"}"><th scope="row">{name}</th>{"".join(shown)}</tr>'


def methods(counts: LineageCounts, names: Mapping[int, str]) -> str:
    """Bars: what was evolved by each method, and how much of it was kept."""
    kept, rejected = Counter[int](), Counter[int]()
    for round_ in counts.rounds.values():
        kept += round_.kept_by_method
        rejected += round_.rejected_by_method
    numbers = sorted(kept.keys() | rejected.keys())
    if not numbers:
        return ""
    largest = max(kept[number] + rejected[number] for number in numbers)
    scale = (_WIDTH - 150 - 170) / largest
    rows, said = [], []
    for i, number in enumerate(numbers):
        name, y = names.get(number, f"method {number}"), 8 + 30 * i
        whole = kept[number] + rejected[number]
        label = f"{kept[number]:,} kept, {percent(kept[number], whole)}"
        said.append(f"{name}: {label}")
        rows.append(
            f'<text x="140" y="{y + 14}" text-anchor="end">{short(name, 22)}</text>'
            f'<rect class="kept" x="150" y="{y}" width="{kept[number] * scale:.1f}" height="20" rx="2"/>'
            f'<rect class="dropped" x="{150 + kept[number] * scale:.1f}" y="{y}" width="{rejected[number] * scale:.1f}" '
            f'height="20"/><text x="{158 + whole * scale:.1f}" y="{y + 14}">{label}</text>'
        )
    height = 30 * len(numbers) + 12
    return _figure(height, "".join(rows), "; ".join(said), "Evolutions by method: kept, and rejected behind it")


def lengths(counts: LineageCounts, field: str, what: str) -> str:
    """Histograms, one a round, of the lengths that its records have.

    Args:
        counts: of the run.
        field: the histogram's name in RoundCounts.
        what: is measured, for the caption.
    """
    shown = {number: entry for number, entry in counts.rounds.items() if entry.kept}
    if not shown:
        return ""
    bins = [b for entry in shown.values() for b in getattr(entry, field)]
    first, last = min(bins), max(bins) + 1
    step = (_WIDTH - _LEFT - _RIGHT) / (last - first)
    parts, said = [], []
    for i, (number, entry) in enumerate(shown.items()):
        histogram: Counter[int] = getattr(entry, field)
        base, name = (i + 1) * _ROW, "seeds" if number == 0 else f"round {number}"
        middle = _median(histogram)
        said.append(f"{name}: median about {middle:,} characters")
        parts.append(_histogram(histogram, entry, base, first, step, name))
    height = len(shown) * _ROW
    axis = []
    for b in range(first, last + 1):
        if b % (2 * BINS_PER_OCTAVE) == 0:
            x = _LEFT + (b - first) * step
            axis.append(
                f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{height}"/>'
                f'<text x="{x:.1f}" y="{height + 17}" text-anchor="middle">{2 ** (b // BINS_PER_OCTAVE):,}</text>'
            )
    caption = f"Characters of {what}, a doubling every two bars; the line marks the median's bar"
    return _figure(height + 24, "".join([*axis, *parts]), "; ".join(said), caption)


def _histogram(histogram: Counter[int], entry: RoundCounts, base: int, first: int, step: float, name: str) -> str:
    largest = max(histogram.values())
    middle = _median_bin(histogram)
    bars = "".join(
        f'<rect class="kept" x="{_LEFT + (b - first) * step + 0.75:.1f}" width="{step - 1.5:.1f}" '
        f'y="{base - (_ROW - 14) * n / largest:.1f}" height="{(_ROW - 14) * n / largest:.1f}">'
        f"<title>{name}, {_from(b):,} to {_from(b + 1) - 1:,} characters: {n:,} ({percent(n, entry.kept)})</title></rect>"
        for b, n in sorted(histogram.items())
    )
    x = _LEFT + (middle - first + 0.5) * step
    return (
        f'<text x="{_LEFT - 12}" y="{base - 6}" text-anchor="end">{name}</text>{bars}'
        f'<line class="middle" x1="{x:.1f}" x2="{x:.1f}" y1="{base - _ROW + 8}" y2="{base}"/>'
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    )


def _from(bin_: int) -> int:
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


def _figure(height: float, content: str, said: str, caption: str) -> str:
    picture = f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{short(said, 2000)}">{content}</svg>'
    return f"<figure>{picture}<figcaption>{escaped(caption)}</figcaption></figure>"
