"""results.json files, with the samples behind them -> report.html; a folder of evolve -> lineage.html."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wizardcoder_jax.config import ReportConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.errors import InputError

if TYPE_CHECKING:
    from wizardcoder_jax.benchmarks.problem import Benchmark
    from wizardcoder_jax.reports.pass_at_k_chart import Point
    from wizardcoder_jax.reports.problem_sections import ShownAnswer
    from wizardcoder_jax.reports.results_page import BenchmarkPart
    from wizardcoder_jax.reports.results_reader import Result

CURVE_KS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page of the results, or of an evolve run's lineage."""
    config = parse_command_line(ReportConfig, argv)
    if config.output is not None and not config.overwrite:
        _require_page(config.output)
    if config.lineage is not None:
        from wizardcoder_jax.reports.lineage import write_lineage

        _say(f"wrote {write_lineage(config.lineage, config.output)}")
    else:
        _write_report(config, config.output or "report.html")


def _require_page(path: str) -> None:
    """Raise InputError if `path` is an existing file that is not an HTML page, e.g. results given as output by mistake."""
    from wizardcoder_jax.core.filesystem import exists, open_bytes

    if exists(path) and not os.path.isdir(path):
        with open_bytes(path, unzip=False) as file:
            start = file.read(64)
        if start and not start.lstrip().lower().startswith(b"<!doctype html"):
            raise InputError(f"{path} exists and is not an HTML page; choose another --output, or replace it with --overwrite")


def _write_report(config: ReportConfig, output: str) -> None:
    """Reads the results, refuses comparisons that mean nothing, writes the page."""
    from wizardcoder_jax.core.filesystem import write_text
    from wizardcoder_jax.reports.results_page import report_page
    from wizardcoder_jax.reports.results_reader import read_result

    results = [read_result(path) for path in config.results]
    samples = config.samples or tuple(_recorded_samples(result) for result in results)
    labels = [chr(ord("A") + i) if len(results) <= 26 else str(i + 1) for i in range(len(results))]
    groups: dict[str, list[int]] = {}
    for i, result in enumerate(results):
        groups.setdefault(result.benchmark, []).append(i)
    if config.benchmark_file is not None and len(groups) > 1:
        raise InputError(
            f"--benchmark-file is for one benchmark; the results are of {', '.join(groups)}; make a report of each"
        )
    notes = {name: _refused(config, [results[i] for i in own]) for name, own in groups.items()}
    parts = [
        _part(config, name, [(labels[i], results[i], samples[i]) for i in own], notes[name]) for name, own in groups.items()
    ]
    write_text(output, report_page(parts))
    _say(f"wrote {output}")


def _say(line: str) -> None:
    print(f"report: {line}", file=sys.stderr)


def _recorded_samples(result: "Result") -> str | None:
    """The samples file that the results name, where it still is."""
    named = result.config.get("samples")
    return named if isinstance(named, str) and os.path.isfile(named) else None


def _refused(config: ReportConfig, results: "Sequence[Result]") -> list[str]:
    """What makes results of one benchmark different measurements; only with --force are they compared all the same."""
    from wizardcoder_jax.reports.comparison import why_incomparable

    notes = []
    for other in results[1:]:
        why = why_incomparable(results[0], other)
        if why is None:
            continue
        what = f"{other.path} against {results[0].path}: not the same measurement ({why})"
        if not config.force:
            raise InputError(f"{what}; evaluate both alike, or give --force to compare them all the same")
        _say(f"warning: {what}; compared because of --force")
        notes.append(f"{what}. The difference between them says little about the models.")
    return notes


def _part(
    config: ReportConfig, name: str, own: "Sequence[tuple[str, Result, str | None]]", notes: list[str]
) -> "BenchmarkPart":
    from wizardcoder_jax.reports.problem_sections import Shown
    from wizardcoder_jax.reports.results_page import BenchmarkPart

    results = [result for _, result, _ in own]
    benchmark = _load(config, results[0], notes)
    shown: list[Shown] = []
    for label, result, path in own:
        answers = {} if benchmark is None or path is None else _answers(benchmark, result, path, notes)
        if benchmark is not None and path is None:
            notes.append(f"{label}: no samples file, so its answers are not shown; name it with --samples.")
        shown.append(Shown(label=label, result=result, answers=answers))
    curves = [_curve(result) for result in results]
    for (label, result, _), curve in zip(own, curves, strict=True):
        notes += _doubts(label, result, curve)
    prompts = {} if benchmark is None else _prompts(benchmark, results[0])
    return BenchmarkPart(name=name, shown=shown, prompts=prompts, curves=curves, notes=notes)


def _load(config: ReportConfig, result: "Result", notes: list[str]) -> "Benchmark | None":
    """The problems; the page does without them where they are not at hand, unless a file was named."""
    from wizardcoder_jax.benchmarks.catalog import load_benchmark

    named = result.config.get("benchmark_file")
    recorded = named if isinstance(named, str) and os.path.isfile(named) else None
    try:
        file, split = config.benchmark_file or recorded, result.config.get("split")
        version = None if file else result.config.get("benchmark_version")
        return load_benchmark(result.benchmark, file, split=split, version=version)
    except InputError as error:
        if config.benchmark_file is not None:
            raise
        notes.append(f"Prompts and answers are not shown: {error}.")
        return None


def _answers(benchmark: "Benchmark", result: "Result", path: str, notes: list[str]) -> "dict[tuple[str, int], ShownAnswer]":
    from wizardcoder_jax.benchmarks.protocols import get_protocol
    from wizardcoder_jax.benchmarks.samples_file import read_samples
    from wizardcoder_jax.reports.problem_sections import ShownAnswer

    protocol, problems = get_protocol(result.protocol), {problem.task_id: problem for problem in benchmark.problems}
    found = {}
    for sample in read_samples(path, benchmark.problems):
        cleaned = protocol.clean_answer(sample, problems[sample.task_id])
        found[sample.task_id, sample.sample_index] = ShownAnswer(raw=sample.raw, cleaned=cleaned)
    wanted = {(task_id, outcome.sample_index) for task_id, own in result.problems.items() for outcome in own}
    if missing := len(wanted - found.keys()):
        notes.append(f"{path} lacks {missing} of the {len(wanted)} samples of {result.path}: are they of the same run?")
    return found


def _prompts(benchmark: "Benchmark", result: "Result") -> dict[str, str]:
    """What was asked under the protocol; the problem itself where the protocol asks nothing."""
    from wizardcoder_jax.benchmarks.protocols import get_protocol

    protocol = get_protocol(result.protocol)
    asks = protocol.write_prompt is not None
    return {problem.task_id: protocol.prompt(problem) if asks else problem.prompt for problem in benchmark.problems}


def _curve(result: "Result") -> "list[Point]":
    """pass@k from the verdicts, for round k up to the fewest samples of a problem."""
    from wizardcoder_jax.benchmarks.pass_at_k import mean_pass_at_k

    counts = list(result.counts.values())
    fewest = min(num_samples for num_samples, _ in counts)
    ks = sorted({k for k in (*CURVE_KS, fewest) if 1 <= k <= fewest})
    return [(k, mean, *interval) for k in ks for mean, interval in [mean_pass_at_k(counts, k)]]


def _doubts(label: str, result: "Result", curve: "Sequence[Point]") -> list[str]:
    """What in a results file a reader must not miss."""
    doubts = []
    if result.missing:
        doubts.append(f"{label}: {result.missing} problems have no sample and are left out; this is no score of the benchmark.")
    total = sum(num_samples for num_samples, _ in result.counts.values())
    if result.num_forgeable:
        doubts.append(f"{label}: {result.num_forgeable} of {total} verdicts could have been faked by the program they are on.")
    broken = sum(outcome.reason == "sandbox" for own in result.problems.values() for outcome in own)
    if broken:
        doubts.append(f"{label}: {broken} samples count as failed because the sandbox failed, not they.")
    if curve and abs(curve[0][1] - result.score.pass_at_k[1]) > 1e-6:
        doubts.append(f"{label}: pass@1 does not follow from the verdicts in {result.path}; one of them was changed.")
    return doubts


if __name__ == "__main__":
    run_command(main)
