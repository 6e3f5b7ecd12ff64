"""DOOR: samples.jsonl -> results.json (pass@k); every program runs in the sandbox."""

import dataclasses
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wizardcoder_jax.config import EvaluateConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.errors import InputError

if TYPE_CHECKING:
    from wizardcoder_jax.benchmarks.problem import Benchmark
    from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
    from wizardcoder_jax.core.resume_log import ResumeLog
    from wizardcoder_jax.sandbox.program import Program, Verdict
    from wizardcoder_jax.sandbox.runner import Sandbox


def main(argv: Sequence[str] | None = None) -> None:
    """Scores a samples file, or with --self-check the benchmark's own solutions."""
    config = parse_command_line(EvaluateConfig, argv)
    from wizardcoder_jax.benchmarks.samples_file import read_samples
    from wizardcoder_jax.benchmarks.score import select_samples
    from wizardcoder_jax.core.filesystem import write_json
    from wizardcoder_jax.evaluation.programs import programs_of, reference_programs
    from wizardcoder_jax.evaluation.results_file import Evaluation, print_score, results_of
    from wizardcoder_jax.sandbox.runner import Sandbox

    whole = _load(config)
    benchmark = whole.first(config.limit)
    if config.samples is None or config.self_check:
        _self_check(config, benchmark)
        return
    meta, protocol = _protocol(config, config.samples)
    chosen = select_samples(benchmark, read_samples(config.samples, whole.problems), config.ks, partial=config.partial)
    sandbox = Sandbox.open(unsafe=config.unsafe_no_sandbox)
    programs = programs_of(benchmark, chosen, protocol, config.python)
    with _journal(config, benchmark, sandbox) as journal:
        verdicts = _run(config, benchmark, sandbox, programs, journal)
        references: dict[tuple[str, int], Verdict] = {}
        if not benchmark.runs_anywhere:
            passed = {task_id for (task_id, _), verdict in verdicts.items() if verdict.passed}
            own = reference_programs(benchmark, config.python)
            doubtful = {(name, 0): own[name] for name in chosen if name in own and name not in passed}
            print(f"of {len(doubtful)} problems that no sample solves the reference is run", file=sys.stderr)
            references = _run(config, benchmark, sandbox, doubtful, journal)
        evaluation = Evaluation(
            benchmark=benchmark,
            protocol=protocol,
            tier=sandbox.tier,
            verdicts=verdicts,
            not_runnable=frozenset(task_id for (task_id, _), verdict in references.items() if not verdict.passed),
        )
        results = results_of(config, evaluation, meta)
        write_json(config.output, results)
    print_score(results, config.output)


def _load(config: EvaluateConfig) -> "Benchmark":
    from wizardcoder_jax.benchmarks.catalog import load_benchmark
    from wizardcoder_jax.benchmarks.multipl_e import LANGUAGES
    from wizardcoder_jax.sandbox.toolchains import check_libraries, toolchain

    language = config.benchmark.removeprefix("multipl-e-")
    if language != config.benchmark and language in LANGUAGES:
        toolchain(language)
        check_libraries(language)
    if config.python is not None and not (os.path.isfile(config.python) and os.access(config.python, os.X_OK)):
        raise InputError(f"--python {config.python} is not a program; give the path of a Python interpreter")
    return load_benchmark(config.benchmark, config.benchmark_file, split=config.split, version=config.benchmark_version)


def _protocol(config: EvaluateConfig, samples: str) -> tuple[dict[str, Any], "EvaluationProtocol"]:
    """(settings the samples were made with, protocol): --protocol, else what those settings say."""
    from wizardcoder_jax.benchmarks.protocols import get_protocol
    from wizardcoder_jax.benchmarks.samples_file import meta_path, read_meta

    meta = read_meta(samples)
    name = config.protocol or meta.get("protocol")
    if name is None:
        raise InputError(f"{samples} does not say how it was made (no protocol in {meta_path(samples)}); give --protocol ID")
    recorded = meta.get("protocol", name)
    if recorded != name:
        print(f"note: the samples were made with {recorded!r}, and are scored with {name!r}", file=sys.stderr)
    return meta, get_protocol(str(name))


def _journal(config: EvaluateConfig, benchmark: "Benchmark", sandbox: "Sandbox") -> "ResumeLog":
    """Verdicts of an earlier, unfinished run; they hold for this sandbox, time limit and Python only."""
    from wizardcoder_jax.core.resume_log import ResumeLog

    if os.path.isdir(config.output):
        raise InputError(f"--output {config.output} is a folder; give the name of a file")
    fingerprint = f"{sandbox.tier}, {_timeout_s(config, benchmark)} s, Python {platform.python_version()}"
    return ResumeLog(config.output, fingerprint, resume=not config.overwrite)


def _timeout_s(config: EvaluateConfig, benchmark: "Benchmark") -> float:
    return benchmark.timeout_s if config.timeout_s is None else config.timeout_s


def _run(
    config: EvaluateConfig,
    benchmark: "Benchmark",
    sandbox: "Sandbox",
    programs: Mapping[tuple[str, int], "Program"],
    journal: "ResumeLog | None",
) -> dict[tuple[str, int], "Verdict"]:
    """A verdict for each program; equal programs run once, and those the journal knows not at all."""
    from wizardcoder_jax.core.progress import Progress
    from wizardcoder_jax.evaluation.programs import verdicts_of
    from wizardcoder_jax.sandbox.program import SANDBOX, Verdict

    keys = {sample: program.digest() for sample, program in programs.items()}
    unique = {key: programs[sample] for sample, key in keys.items()}
    known = {record.pop("key"): Verdict(**record) for record in map(dict, journal.records if journal else ())}
    verdicts = {key: verdict for key, verdict in known.items() if key in unique}
    waiting = {key: program for key, program in unique.items() if key not in verdicts}
    num_passed = sum(verdict.passed for verdict in verdicts.values())
    with Progress("evaluate", total=len(unique), unit="program", done=len(verdicts)) as progress:
        timeout_s = _timeout_s(config, benchmark)
        for key, verdict in verdicts_of(sandbox, waiting, timeout_s, config.num_workers):
            verdicts[key] = verdict
            if journal and verdict.reason != SANDBOX:  # a sandbox that failed is tried again by the next run
                journal.append({"key": key, **dataclasses.asdict(verdict)})
            num_passed += verdict.passed
            progress.update(passed=num_passed)
    return {sample: verdicts[key] for sample, key in keys.items()}


def _self_check(config: EvaluateConfig, benchmark: "Benchmark") -> None:
    """Runs the reference solutions and ends with status 1 unless all pass that should; writes no results."""
    from wizardcoder_jax.evaluation.programs import reference_programs
    from wizardcoder_jax.evaluation.results_file import print_self_check
    from wizardcoder_jax.sandbox.runner import Sandbox

    own = reference_programs(benchmark, config.python)
    if not own:
        print(f"self-check of {benchmark.name} ({benchmark.version}): its tools are here; it has no reference solutions")
        return
    sandbox = Sandbox.open(unsafe=config.unsafe_no_sandbox)
    verdicts = _run(config, benchmark, sandbox, {(task_id, 0): program for task_id, program in own.items()}, journal=None)
    print_self_check(benchmark, {task_id: verdict for (task_id, _), verdict in verdicts.items()})


if __name__ == "__main__":
    run_command(main)
