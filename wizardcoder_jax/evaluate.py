"""samples.jsonl -> results.json (pass@k); every program runs in the sandbox."""

import dataclasses
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wizardcoder_jax.config import EvaluateConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.errors import InputError

if TYPE_CHECKING:
    from wizardcoder_jax.benchmarks.problem import Benchmark
    from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
    from wizardcoder_jax.core.program import Program
    from wizardcoder_jax.core.resume_log import ResumeLog
    from wizardcoder_jax.sandbox.program_runner import ProgramRunner
    from wizardcoder_jax.sandbox.verdict import Verdict

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Score a samples file, or run the benchmark's own solutions with --self-check."""
    config = parse_command_line(EvaluateConfig, argv)
    from wizardcoder_jax.benchmarks.samples_file import read_samples
    from wizardcoder_jax.benchmarks.score import select_samples
    from wizardcoder_jax.core.filesystem import write_json
    from wizardcoder_jax.evaluation.programs import open_runner, reference_programs, sample_programs
    from wizardcoder_jax.evaluation.results_file import Evaluation, build_results, log_score

    full_benchmark = _load_benchmark(config)
    benchmark = full_benchmark.first(config.limit)
    if config.samples is None or config.self_check:
        _self_check(config, benchmark)
        return
    meta, protocol = _protocol(config, config.samples)
    samples = select_samples(
        benchmark, read_samples(config.samples, full_benchmark.problems), config.ks, partial=config.partial
    )
    runner = open_runner(_timeout_s(config, benchmark), config.num_workers, unsafe=config.unsafe_no_sandbox)
    programs = sample_programs(benchmark, samples, protocol, config.python)
    with runner, _open_work_log(config, benchmark, runner.sandbox.tier) as work_log:
        verdicts = _run(runner, programs, work_log)
        reference_verdicts: dict[tuple[str, int], Verdict] = {}
        if not benchmark.runs_anywhere:
            solved = {task_id for (task_id, _), verdict in verdicts.items() if verdict.passed}
            references = reference_programs(benchmark, config.python)
            unsolved = {(name, 0): references[name] for name in samples if name in references and name not in solved}
            logger.info("running the reference solutions of %d problems that no sample solves", len(unsolved))
            reference_verdicts = _run(runner, unsolved, work_log)
        evaluation = Evaluation(
            benchmark=benchmark,
            protocol=protocol,
            tier=runner.sandbox.tier,
            verdicts=verdicts,
            not_runnable=frozenset(task_id for (task_id, _), verdict in reference_verdicts.items() if not verdict.passed),
        )
        results = build_results(config, evaluation, meta)
        write_json(config.output, results)
    log_score(results, config.output)


def _load_benchmark(config: EvaluateConfig) -> "Benchmark":
    from wizardcoder_jax.benchmarks.catalog import load_benchmark
    from wizardcoder_jax.benchmarks.multipl_e import LANGUAGES
    from wizardcoder_jax.sandbox.toolchains import check_libraries, toolchain

    language = config.benchmark.removeprefix("multipl-e-")
    if language != config.benchmark and language in LANGUAGES:
        toolchain(language)
        check_libraries(language)
    if config.python is not None and not (os.path.isfile(config.python) and os.access(config.python, os.X_OK)):
        raise InputError(f"--python {config.python} is not an executable file; give the path of a Python interpreter")
    return load_benchmark(config.benchmark, config.benchmark_file, split=config.split, version=config.benchmark_version)


def _protocol(config: EvaluateConfig, samples: str) -> tuple[dict[str, Any], "EvaluationProtocol"]:
    """Return the settings that generated the samples, and the protocol: from --protocol, or else from these settings."""
    from wizardcoder_jax.benchmarks.protocols import get_protocol
    from wizardcoder_jax.benchmarks.samples_file import meta_path, read_meta

    meta = read_meta(samples)
    name = config.protocol or meta.get("protocol")
    if name is None:
        raise InputError(f"{samples} does not record its protocol ({meta_path(samples)} names none); give --protocol NAME")
    recorded = meta.get("protocol", name)
    if recorded != name:
        logger.info("the samples were generated with protocol %r, but are scored with protocol %r", recorded, name)
    return meta, get_protocol(str(name))


def _open_work_log(config: EvaluateConfig, benchmark: "Benchmark", tier: str) -> "ResumeLog":
    """Open the log of an unfinished run's verdicts, which is valid only for the same sandbox tier, time limit and Python."""
    from wizardcoder_jax.core.resume_log import ResumeLog

    if os.path.isdir(config.output):
        raise InputError(f"--output {config.output} is a folder; give the path of a file")
    fingerprint = f"{tier}, {_timeout_s(config, benchmark)} s, Python {platform.python_version()}"
    return ResumeLog(config.output, fingerprint, resume=not config.overwrite)


def _timeout_s(config: EvaluateConfig, benchmark: "Benchmark") -> float:
    return benchmark.timeout_s if config.timeout_s is None else config.timeout_s


def _run(
    runner: "ProgramRunner", programs: Mapping[tuple[str, int], "Program"], work_log: "ResumeLog | None"
) -> dict[tuple[str, int], "Verdict"]:
    """Run the programs that the work log lacks, with a progress bar; return the verdict of each program."""
    from wizardcoder_jax.core.progress import Progress
    from wizardcoder_jax.evaluation.programs import run_distinct
    from wizardcoder_jax.sandbox.verdict import SANDBOX, Verdict

    digests = {program.digest() for program in programs.values()}
    logged = {record.pop("key"): Verdict(**record) for record in map(dict, work_log.records if work_log else ())}
    known = {digest: verdict for digest, verdict in logged.items() if digest in digests}
    num_passed = sum(verdict.passed for verdict in known.values())
    with Progress("evaluate", total=len(digests), unit="program", done=len(known)) as progress:

        def record(digest: str, verdict: Verdict) -> None:
            nonlocal num_passed
            if work_log and verdict.reason != SANDBOX:  # if the sandbox failed, the next run tries again
                work_log.append({"key": digest, **dataclasses.asdict(verdict)})
            num_passed += verdict.passed
            progress.update(passed=num_passed)

        return run_distinct(runner, programs, known, record)


def _self_check(config: EvaluateConfig, benchmark: "Benchmark") -> None:
    """Run the reference solutions, and exit with status 1 if one fails that should pass; write no results file."""
    from wizardcoder_jax.evaluation.programs import open_runner, reference_programs
    from wizardcoder_jax.evaluation.results_file import log_self_check

    programs = reference_programs(benchmark, config.python)
    if not programs:
        print(f"self-check of {benchmark.name} ({benchmark.version}): the toolchain is installed; no reference solutions exist")
        return
    with open_runner(_timeout_s(config, benchmark), config.num_workers, unsafe=config.unsafe_no_sandbox) as runner:
        verdicts = _run(runner, {(task_id, 0): program for task_id, program in programs.items()}, work_log=None)
    log_self_check(benchmark, {task_id: verdict for (task_id, _), verdict in verdicts.items()})


if __name__ == "__main__":
    run_command(main)
