"""The report as one self-contained HTML page: scores, curves, comparisons, published scores, every problem."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from wizardcoder_jax.reports.comparison import Flip, compare, differences
from wizardcoder_jax.reports.html_escape import escaped, short
from wizardcoder_jax.reports.page_head import asset, head
from wizardcoder_jax.reports.pass_at_k_chart import Point, interval_bar, pass_at_k_chart
from wizardcoder_jax.reports.problem_sections import ProblemList, Shown
from wizardcoder_jax.reports.published_scores import PUBLISHED
from wizardcoder_jax.reports.results_reader import PassAtKScore

MAX_FLIPS = 400  # rows of a comparison
MAX_REASONS = 12  # rows of a count of reasons
_NAMES = ("model", "problem", "version")  # columns whose cells may be long words
_DECODING = ("temperature", "top_p", "seed", "max_length")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkPart:
    """All results of one benchmark.

    Attributes:
        name: of the benchmark.
        shown: its results files.
        prompts: the prompt of each task that is known.
        curves: pass@k of each results file, in the same order.
        notes: what a reader must know, e.g. that protocols differ.
    """

    name: str
    shown: Sequence[Shown]
    prompts: Mapping[str, str]
    curves: Sequence[Sequence[Point]]
    notes: Sequence[str] = ()


def report_page(parts: Sequence[BenchmarkPart]) -> str:
    """The page; needs nothing from outside, and runs no script but its own."""
    style, script = asset("page.css"), asset("page.js")
    names = ", ".join(dict.fromkeys(short(part.name, 60) for part in parts))
    overview = _overview(parts) if len(parts) > 1 else ""
    sections = "".join(_benchmark(f"b{i}", part, 1 / len(parts)) for i, part in enumerate(parts))
    title = f"Evaluation: {names}"
    intro = (
        f"<h1>{title}</h1><p>pass@k is the unbiased estimate over all samples of a problem; brackets and bars are "
        "95 % intervals by bootstrap over problems. Scores of different protocols are not the same measurement.</p>"
    )
    skip = '<a class="skip" href="#problems-b0">Skip to the problems</a>'
    body = f"{skip}<header>{intro}</header><main>{overview}{sections}</main>"
    return (
        f'<!doctype html>\n<html lang="en">{head(title, style, [script])}<body>{body}<script>{script}</script></body></html>\n'
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already; the columns `numbers` are set to the right."""
    kinds = ["number" if i in numbers else "name" if name in _NAMES else "" for i, name in enumerate(header)]
    heads = "".join(f'<th scope="col" class="{kind}">{name}</th>' for name, kind in zip(header, kinds, strict=True))
    lines = (
        "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _benchmark(key: str, part: BenchmarkPart, share: float) -> str:
    problems = ProblemList(key, part.shown, part.prompts, share)
    warnings = "".join(f'<p class="warning">{escaped(note)}</p>' for note in part.notes)
    curves = [(f"{shown.label}: {shown.result.model}", points) for shown, points in zip(part.shown, part.curves, strict=True)]
    chart = pass_at_k_chart(curves) if any(len(points) > 1 for points in part.curves) else ""
    comparisons = "".join(_comparison(part.shown[0], other, problems) for other in part.shown[1:])
    return (
        f'<section><h2 id="{key}">{short(part.name, 60)}</h2>{warnings}'
        f"{_scores(part.shown)}{chart}{_libraries(part.shown)}{_conditions(part.shown)}"
        f"{_reasons(part.shown)}{comparisons}{_published(part.name)}"
        f'<section><h3 id="problems-{key}" tabindex="-1">Problems</h3>{_tools(key, len(part.shown) > 1)}{problems.to_html()}'
        "</section></section>"
    )


def _overview(parts: Sequence[BenchmarkPart]) -> str:
    rows = []
    for i, part in enumerate(parts):
        for shown in part.shown:
            link = f'<a href="#b{i}">{short(part.name, 60)}</a>'
            cells = [link, escaped(shown.label), short(shown.result.model, 80), short(shown.result.protocol, 60)]
            rows.append([*cells, _rate(shown.result.score, 1), str(shown.result.score.num_problems)])
    header = ["benchmark", "", "model", "protocol", "pass@1", "problems"]
    return "<section><h2>All benchmarks</h2>" + table(header, rows, numbers=(4, 5)) + "</section>"


def _rate(score: PassAtKScore, k: int) -> str:
    if k not in score.pass_at_k:
        return ""
    low, high = score.confidence_95.get(k, (None, None))
    interval = "" if low is None or high is None else f' <span class="interval">[{100 * low:.1f}, {100 * high:.1f}]</span>'
    return f"{100 * score.pass_at_k[k]:.1f} %{interval}"


def _scores(shown: Sequence[Shown]) -> str:
    ks = sorted({k for part in shown for k in part.result.score.pass_at_k})
    has_runnable = any(part.result.runnable is not None for part in shown)
    rows = []
    for i, part in enumerate(shown):
        result = part.result
        interval = result.score.confidence_95.get(1)
        bar = interval_bar(result.score.pass_at_k[1], *interval, i) if interval else ""
        cells = [escaped(part.label), f"{short(result.model, 80)}{bar}", *(_rate(result.score, k) for k in ks)]
        if has_runnable:
            cells.append("" if result.runnable is None else f"{_rate(result.runnable, 1)} of {result.runnable.num_problems}")
        missing = f" ({result.missing} missing)" if result.missing else ""
        rows.append([*cells, f"{result.score.num_problems}{missing}", str(result.num_samples)])
    header = ["", "model", *(f"pass@{k}" for k in ks), *(["runnable, pass@1"] if has_runnable else [])]
    header += ["problems", "samples each"]
    return "<h3>Measured</h3>" + table(header, rows, numbers=range(2, len(header)))


def _conditions(shown: Sequence[Shown]) -> str:
    rows = []
    for part in shown:
        result = part.result
        decoding = [f"{name.replace('_', '-')} {result.meta[name]}" for name in _DECODING if result.meta.get(name) is not None]
        usage = result.meta.get("usage")
        if isinstance(usage, dict):  # of a model behind a server
            names, usd = usage.get("served_by"), usage.get("usd")
            decoding.append(f"served by {', '.join(map(str, names)) if isinstance(names, list) else names}")
            decoding += [f"${usd:.4f}"] if isinstance(usd, float) and usd else []
        forgeable = f", {result.num_forgeable} forgeable" if result.num_forgeable else ""
        python = str(result.environment.get("python", "not recorded"))
        cells = [", ".join(decoding) or "not recorded", result.tier + forgeable, python, result.version]
        rows.append([escaped(part.label), short(result.protocol, 60), *(short(cell) for cell in cells)])
    return "<h3>How</h3>" + table(["", "protocol", "decoding", "sandbox", "Python", "version"], rows)


def _libraries(shown: Sequence[Shown]) -> str:
    names = sorted({name for part in shown for name in part.result.libraries})
    if not names:
        return ""
    rows = []
    for name in names:
        own = [part.result.libraries.get(name) for part in shown]
        num_problems = next(score.num_problems for score in own if score is not None)
        rows.append([short(name, 60), str(num_problems), *("" if score is None else _rate(score, 1) for score in own)])
    header = ["library", "problems", *(f"{escaped(part.label)}, pass@1" for part in shown)]
    return "<h3>By library</h3>" + table(header, rows, numbers=range(1, len(header)))


def _reasons(shown: Sequence[Shown]) -> str:
    counts = [Counter(o.reason for own in part.result.problems.values() for o in own) for part in shown]
    total = sum(counts, Counter())
    kept = [reason for reason, _ in total.most_common(MAX_REASONS)]
    rows = [[short(reason, 80), *(str(count[reason]) for count in counts)] for reason in kept]
    if len(total) > len(kept):
        rows.append(["others", *(str(sum(count.values()) - sum(count[reason] for reason in kept)) for count in counts)])
    header = ["reason", *(escaped(part.label) for part in shown)]
    return "<h3>How the samples ended</h3>" + table(header, rows, numbers=range(1, len(header)))


def _comparison(first: Shown, second: Shown, problems: ProblemList) -> str:
    title = f"<h3>{escaped(second.label)} against {escaped(first.label)}: which problems flipped</h3>"
    found = compare(first.result, second.result)
    if found is None:
        return f"{title}<p>They have no problem in common.</p>"
    low, high = found.interval
    summary = (
        f"<p>pass@1 changes by <strong>{100 * found.change:+.1f}</strong> points [{100 * low:+.1f}, {100 * high:+.1f}] "
        f"over the {found.num_problems} problems of both: {len(found.gained)} gained, {len(found.lost)} lost.</p>"
    )
    made = differences(first.result, second.result)
    rows = [[short(name), short(a, 300), short(b, 300)] for name, a, b in made]
    how = "<h4>What else differs</h4>" + table(["", escaped(first.label), escaped(second.label)], rows) if rows else ""
    flips = [_flip(flip, problems) for flip in found.flips[:MAX_FLIPS]]
    header = ["problem", escaped(first.label), escaped(second.label), "change"]
    cut = (
        f'<p class="note">The {MAX_FLIPS} largest of {len(found.flips)} are shown.</p>' if len(found.flips) > MAX_FLIPS else ""
    )
    changed = table(header, flips, numbers=(1, 2)) + cut if flips else "<p>No problem flipped.</p>"
    return title + summary + changed + how


def _flip(flip: Flip, problems: ProblemList) -> list[str]:
    name, state = ("gained", "pass") if flip.change > 0 else ("lost", "fail")
    shares = [f"{passed}/{samples}" for samples, passed in (flip.before, flip.after)]
    return [problems.link(flip.task_id), *shares, f'<span class="badge {state}">{name}</span>']


def _published(benchmark: str) -> str:
    rows = [
        [escaped(row.model), f"{row.score:.1f} %", escaped(row.protocol), escaped(row.source)]
        for row in PUBLISHED
        if row.benchmark == benchmark
    ]
    if not rows:
        return ""
    note = "<p>Not measured here: prompts, cleaning and decoding differ from ours and among themselves. Not for ranking.</p>"
    return "<h3>Published by others</h3>" + note + table(["model", "pass@1", "how", "source"], rows, numbers=(1,))


def _tools(key: str, is_comparison: bool) -> str:
    states = [("all", "All"), ("failed", "With failures"), ("passed", "With passes")]
    states += [("flipped", "Flipped")] if is_comparison else []
    radios = "".join(
        f'<label><input type="radio" name="state-{key}" value="{value}"{" checked" if value == "all" else ""}> {text}</label>'
        for value, text in states
    )
    keys = "<kbd>/</kbd> search, <kbd>j</kbd> <kbd>k</kbd> next, previous, <kbd>Enter</kbd> open"
    return (
        f'<div class="tools" hidden><fieldset><legend>Show</legend>{radios}</fieldset>'
        '<input type="search" placeholder="task or reason" aria-label="Task or reason">'
        f'<span class="note" role="status"></span><span class="note">{keys}</span></div>'
    )
