"""Results page: scores, pass@k curves, comparisons, published scores, and a section for every problem."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from wizardcoder_jax.reports import pass_at_k_chart
from wizardcoder_jax.reports.comparison import RunComparison, compare_results, list_differences
from wizardcoder_jax.reports.html_page import render_page
from wizardcoder_jax.reports.pass_at_k_chart import CurvePoint, PassAtKChart, layout_pass_at_k
from wizardcoder_jax.reports.problem_sections import ProblemSections, ReportedRun
from wizardcoder_jax.reports.published_scores import PUBLISHED_SCORES, PublishedScore
from wizardcoder_jax.reports.results_reader import PassAtKScore
from wizardcoder_jax.reports.visible_text import shorten_line

MAX_FLIPS = 400  # number of rows in a table of flipped problems
MAX_REASONS = 12  # number of rows in the table of reasons


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkReport:
    """Input of the page for one benchmark.

    Attributes:
        name: name of the benchmark.
        runs: results files; each one after the first is compared with the first.
        prompts: prompts by task id, as far as they are known.
        curves: points of the pass@k curve of each run, in the order of `runs`.
        notes: warnings to the reader, e.g. that protocols differ.
    """

    name: str
    runs: Sequence[ReportedRun]
    prompts: Mapping[str, str]
    curves: Sequence[Sequence[CurvePoint]]
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LibraryRow:
    """Scores of all runs on the problems of one library, for benchmarks that group problems by library."""

    name: str
    num_problems: int
    scores: Sequence[PassAtKScore | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Comparison of two runs; `found` is None if they have no problem in common."""

    first: ReportedRun
    second: ReportedRun
    found: RunComparison | None
    differences: Sequence[tuple[str, str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _BenchmarkView:
    """Variables of the template results.html for one benchmark."""

    key: str  # prefix of HTML ids
    name: str
    notes: Sequence[str]
    runs: Sequence[ReportedRun]
    ks: Sequence[int]
    has_runnable: bool
    chart: PassAtKChart | None
    libraries: Sequence[_LibraryRow]
    reasons: Sequence[tuple[str, Sequence[int]]]
    comparisons: Sequence[_Comparison]
    published: Sequence[PublishedScore]
    problems: ProblemSections

    @property
    def labels(self) -> list[str]:
        return [run.label for run in self.runs]


def render_results_page(reports: Sequence[BenchmarkReport]) -> str:
    """Return the results page as HTML."""
    names = ", ".join(dict.fromkeys(shorten_line(report.name, 60) for report in reports))
    views = [_build_view(f"b{i}", report, 1 / len(reports)) for i, report in enumerate(reports)]
    pieces = render_page(
        "results.html",
        styles=["page.css"],
        scripts=["results.js"],
        title=f"Evaluation: {names}",
        benchmarks=views,
        max_flips=MAX_FLIPS,
        plot=pass_at_k_chart,
    )
    return "".join(pieces)


def _build_view(key: str, report: BenchmarkReport, share: float) -> _BenchmarkView:
    """Compute what the page shows about a benchmark, using at most the fraction `share` of the page's size limits."""
    runs = report.runs
    curves = [(f"{run.label}: {run.result.model}", points) for run, points in zip(runs, report.curves, strict=True)]
    return _BenchmarkView(
        key=key,
        name=report.name,
        notes=report.notes,
        runs=runs,
        ks=sorted({k for run in runs for k in run.result.score.pass_at_k}),
        has_runnable=any(run.result.runnable is not None for run in runs),
        chart=layout_pass_at_k(curves) if any(len(points) > 1 for points in report.curves) else None,
        libraries=_library_rows(runs),
        reasons=_count_reasons(runs),
        comparisons=[_compare(runs[0], other) for other in runs[1:]],
        published=[score for score in PUBLISHED_SCORES if score.benchmark == report.name],
        problems=ProblemSections(key, runs, report.prompts, share),
    )


def _library_rows(runs: Sequence[ReportedRun]) -> list[_LibraryRow]:
    rows = []
    for name in sorted({name for run in runs for name in run.result.libraries}):
        scores = [run.result.libraries.get(name) for run in runs]
        num_problems = next(score.num_problems for score in scores if score is not None)
        rows.append(_LibraryRow(name=name, num_problems=num_problems, scores=scores))
    return rows


def _count_reasons(runs: Sequence[ReportedRun]) -> list[tuple[str, list[int]]]:
    """Return (reason, number of samples in each run), the most common reason first. Rare reasons are summed as "others"."""
    counts = [Counter(o.reason for outcomes in run.result.problems.values() for o in outcomes) for run in runs]
    total = sum(counts, Counter())
    common = [reason for reason, _ in total.most_common(MAX_REASONS)]
    rows = [(reason, [count[reason] for count in counts]) for reason in common]
    if len(total) > len(common):
        rows.append(("others", [count.total() - sum(count[reason] for reason in common) for count in counts]))
    return rows


def _compare(first: ReportedRun, second: ReportedRun) -> _Comparison:
    found = compare_results(first.result, second.result)
    return _Comparison(first=first, second=second, found=found, differences=list_differences(first.result, second.result))
