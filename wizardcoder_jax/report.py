"""Write an HTML report: results.json files and their samples -> report.html, or an evolve run's folder -> lineage.html."""

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wizardcoder_jax.config import ReportConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.errors import InputError

if TYPE_CHECKING:
    from wizardcoder_jax.benchmarks.problem import Benchmark
    from wizardcoder_jax.reports.pass_at_k_chart import CurvePoint
    from wizardcoder_jax.reports.problem_sections import SampleTexts
    from wizardcoder_jax.reports.results_page import BenchmarkReport
    from wizardcoder_jax.reports.results_reader import EvaluationResult

CURVE_KS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # values of k in the chart of pass@k

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page of results files, or the lineage page of an evolve run."""
    config = parse_command_line(ReportConfig, argv)
    if config.output is not None and not config.overwrite:
        _require_page(config.output)
    if config.lineage is not None:
        from wizardcoder_jax.reports.lineage import write_lineage_page

        page = write_lineage_page(config.lineage, config.output)
    else:
        page = _write_results_page(config, config.output or "report.html")
    logger.info("report: wrote %s", page)


def _require_page(path: str) -> None:
    """Raise InputError if `path` is an existing file other than an HTML page, e.g. a results file given by mistake."""
    from wizardcoder_jax.core.filesystem import exists, is_remote, open_bytes

    if exists(path) and (is_remote(path) or os.path.isfile(path)):
        with open_bytes(path, unzip=False) as file:
            start = file.read(64)
        if start and not start.lstrip().lower().startswith(b"<!doctype html"):
            raise InputError(f"{path} exists and is not an HTML page; choose another --output, or replace it with --overwrite")


def _write_results_page(config: ReportConfig, output: str) -> str:
    """Write the page of the results files and return its path.

    Raises:
        InputError: a file is invalid, or results are not comparable and --force is not given.
    """
    from wizardcoder_jax.core.filesystem import write_text
    from wizardcoder_jax.reports.results_page import render_results_page
    from wizardcoder_jax.reports.results_reader import read_result

    results = [read_result(path) for path in config.results]
    samples = config.samples or tuple(_recorded_samples(result) for result in results)
    labels = [chr(ord("A") + i) if len(results) <= 26 else str(i + 1) for i in range(len(results))]
    groups: dict[str, list[int]] = {}
    for i, result in enumerate(results):
        groups.setdefault(result.benchmark, []).append(i)
    if config.benchmark_file is not None and len(groups) > 1:
        raise InputError(
            f"--benchmark-file applies to one benchmark, but the results are of {', '.join(groups)}; write a report for each"
        )
    notes = {name: _check_comparable(config, [results[i] for i in members]) for name, members in groups.items()}
    reports = [
        _build_benchmark_report(config, name, [(labels[i], results[i], samples[i]) for i in members], notes[name])
        for name, members in groups.items()
    ]
    write_text(output, render_results_page(reports))
    return output


def _recorded_samples(result: "EvaluationResult") -> str | None:
    """Return the path of the samples file that the results name, or None if it no longer exists."""
    path = result.config.get("samples")
    return path if isinstance(path, str) and os.path.isfile(path) else None


def _check_comparable(config: ReportConfig, results: "Sequence[EvaluationResult]") -> list[str]:
    """Return a note for each result that is not comparable with the first; without --force, raise InputError instead."""
    from wizardcoder_jax.reports.comparison import find_mismatch

    notes = []
    for other in results[1:]:
        mismatch = find_mismatch(results[0], other)
        if mismatch is None:
            continue
        problem = f"{other.path} and {results[0].path} are not comparable ({mismatch})"
        if not config.force:
            raise InputError(f"{problem}; evaluate both in the same way, or add --force to compare them anyway")
        logger.warning("%s; comparing them anyway because of --force", problem)
        notes.append(f"{problem}. The difference between them says little about the models.")
    return notes


def _build_benchmark_report(
    config: ReportConfig, name: str, runs: "Sequence[tuple[str, EvaluationResult, str | None]]", notes: list[str]
) -> "BenchmarkReport":
    """Build the report of one benchmark from (label, result, samples file) of each run. Appends caveats to `notes`."""
    from wizardcoder_jax.reports.problem_sections import ReportedRun
    from wizardcoder_jax.reports.results_page import BenchmarkReport

    first = runs[0][1]
    benchmark = _load_problems(config, first, notes)
    reported: list[ReportedRun] = []
    for label, result, path in runs:
        answers = {} if benchmark is None or path is None else _read_answers(benchmark, result, path, notes)
        if benchmark is not None and path is None:
            notes.append(f"{label}: answers are not shown because there is no samples file; name it with --samples.")
        reported.append(ReportedRun(label=label, result=result, answers=answers))
    curves = [_compute_curve(run.result) for run in reported]
    for run, curve in zip(reported, curves, strict=True):
        notes += _list_caveats(run.label, run.result, curve)
    prompts = {} if benchmark is None else _prompts(benchmark, first)
    return BenchmarkReport(name=name, runs=reported, prompts=prompts, curves=curves, notes=notes)


def _load_problems(config: ReportConfig, result: "EvaluationResult", notes: list[str]) -> "Benchmark | None":
    """Load the problems of a result. Return None and append a note if they cannot be loaded.

    Raises:
        InputError: the file that the user named with --benchmark-file cannot be loaded.
    """
    from wizardcoder_jax.benchmarks.catalog import load_benchmark

    recorded = result.config.get("benchmark_file")
    if not (isinstance(recorded, str) and os.path.isfile(recorded)):
        recorded = None
    file = config.benchmark_file or recorded
    version = None if file else result.config.get("benchmark_version")
    try:
        return load_benchmark(result.benchmark, file, split=result.config.get("split"), version=version)
    except InputError as error:
        if config.benchmark_file is not None:
            raise
        notes.append(f"Prompts and answers are not shown: {error}.")
        return None


def _read_answers(
    benchmark: "Benchmark", result: "EvaluationResult", path: str, notes: list[str]
) -> "dict[tuple[str, int], SampleTexts]":
    from wizardcoder_jax.benchmarks.protocols import get_protocol
    from wizardcoder_jax.benchmarks.samples_file import read_samples
    from wizardcoder_jax.reports.problem_sections import SampleTexts

    protocol, problems = get_protocol(result.protocol), {problem.task_id: problem for problem in benchmark.problems}
    found = {}
    for sample in read_samples(path, benchmark.problems):
        cleaned = protocol.clean_answer(sample, problems[sample.task_id])
        found[sample.task_id, sample.sample_index] = SampleTexts(raw=sample.raw, cleaned=cleaned)
    expected = {(task_id, outcome.sample_index) for task_id, own in result.problems.items() for outcome in own}
    if num_missing := len(expected - found.keys()):
        notes.append(f"{path} lacks {num_missing} of the {len(expected)} samples of {result.path}: are they from the same run?")
    return found


def _prompts(benchmark: "Benchmark", result: "EvaluationResult") -> dict[str, str]:
    """Return the prompts by task id, as the result's protocol writes them, or the problem texts if it has no prompt."""
    from wizardcoder_jax.benchmarks.protocols import get_protocol

    protocol = get_protocol(result.protocol)
    has_prompt = protocol.write_prompt is not None
    return {problem.task_id: protocol.prompt(problem) if has_prompt else problem.prompt for problem in benchmark.problems}


def _compute_curve(result: "EvaluationResult") -> "list[CurvePoint]":
    """Compute pass@k from the verdicts, for each k that every problem has enough samples for."""
    from wizardcoder_jax.benchmarks.pass_at_k import mean_pass_at_k
    from wizardcoder_jax.reports.pass_at_k_chart import CurvePoint

    counts = list(result.counts.values())
    fewest = min(num_samples for num_samples, _ in counts)
    ks = sorted({k for k in (*CURVE_KS, fewest) if 1 <= k <= fewest})
    return [CurvePoint(k, mean, *interval) for k in ks for mean, interval in [mean_pass_at_k(counts, k)]]


def _list_caveats(label: str, result: "EvaluationResult", curve: "Sequence[CurvePoint]") -> list[str]:
    """Return warnings that a reader should see before trusting a results file."""
    caveats = []
    if result.num_missing:
        caveats.append(f"{label}: {result.num_missing} problems without samples are left out; this is not a benchmark score.")
    total = sum(num_samples for num_samples, _ in result.counts.values())
    if result.num_forgeable:
        caveats.append(f"{label}: {result.num_forgeable} of {total} verdicts could have been faked by the judged program.")
    broken = sum(outcome.reason == "sandbox" for own in result.problems.values() for outcome in own)
    if broken:
        caveats.append(f"{label}: {broken} samples count as failed because the sandbox failed, not the program.")
    if curve and abs(curve[0].rate - result.score.pass_at_k[1]) > 1e-6:
        caveats.append(f"{label}: pass@1 in {result.path} does not match its verdicts; the file may have been edited.")
    return caveats


if __name__ == "__main__":
    run_command(main)
