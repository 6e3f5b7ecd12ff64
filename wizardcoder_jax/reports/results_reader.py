"""Reader of results.json files. It validates everything that a page relies on."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import read_json

_SHOWN_SETTINGS = ("temperature", "top_p", "seed", "max_length")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleOutcome:
    """Outcome of one sample in the sandbox."""

    sample_index: int
    passed: bool
    reason: str
    seconds: float | None
    detail: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassAtKScore:
    """pass@k over a set of problems, with 95 % intervals."""

    num_problems: int
    pass_at_k: dict[int, float]  # k -> pass@k
    confidence_95: dict[int, tuple[float, float]]  # k -> interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Contents of one results.json."""

    path: str
    benchmark: str
    version: str
    protocol: str
    num_samples: int
    score: PassAtKScore
    libraries: dict[str, PassAtKScore]  # score by library; empty unless the benchmark groups problems by library
    runnable: PassAtKScore | None  # score over the problems whose reference solution runs in this environment
    num_missing: int  # number of problems without a sample
    tier: str  # isolation tier of the sandbox
    num_forgeable: int  # number of verdicts that the judged program could have faked
    samples_meta: dict[str, Any]  # settings of `sample`
    environment: dict[str, Any]  # versions of Python and packages
    config: dict[str, Any]  # settings of `evaluate`
    problems: dict[str, tuple[SampleOutcome, ...]]  # outcomes by task id

    @property
    def model(self) -> str:
        """Name of the model, or the path of the results file if the samples do not record the name."""
        return str(self.samples_meta.get("model") or self.path)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Number of samples and number of passing samples, by task id."""
        return {task_id: (len(own), sum(outcome.passed for outcome in own)) for task_id, own in self.problems.items()}

    @property
    def decoding(self) -> str:
        """Sampling settings as one line; for a model behind an API, with the names of the served models and the cost."""
        meta = self.samples_meta
        parts = [f"{name.replace('_', '-')} {meta[name]}" for name in _SHOWN_SETTINGS if meta.get(name) is not None]
        usage = meta.get("usage")
        if isinstance(usage, dict):
            names, usd = usage.get("served_by"), usage.get("usd")
            parts.append(f"served by {', '.join(map(str, names)) if isinstance(names, list) else names}")
            parts += [f"${usd:.4f}"] if isinstance(usd, float) and usd else []
        return ", ".join(parts) or "not recorded"


def read_result(path: str) -> EvaluationResult:
    """Read a results file.

    Raises:
        InputError: the file is missing or is not a results file; the message names the invalid key.
    """
    content = read_json(path)
    texts = {key: _require(path, content, key, str) for key in ("benchmark", "benchmark_version", "protocol")}
    problems = _require(path, content, "problems", dict)
    sandbox, libraries = _mapping(content.get("sandbox")), _mapping(content.get("libraries"))
    runnable, missing = content.get("runnable"), content.get("missing")
    if not problems:
        raise InputError(f'{path}: "problems" is empty; nothing was evaluated')
    return EvaluationResult(
        path=path,
        benchmark=texts["benchmark"],
        version=texts["benchmark_version"],
        protocol=texts["protocol"],
        num_samples=_require(path, content, "num_samples", int),
        score=_score(path, content),
        libraries={str(name): _score(f'{path}: "libraries"', own) for name, own in libraries.items()},
        runnable=_score(f'{path}: "runnable"', runnable) if isinstance(runnable, dict) and "pass_at_k" in runnable else None,
        num_missing=len(missing) if isinstance(missing, list) else 0,
        tier=str(sandbox.get("tier", "not recorded")),
        num_forgeable=_count(sandbox.get("forgeable_verdicts")),
        samples_meta=_mapping(content.get("samples_meta")),
        environment=_mapping(content.get("environment")),
        config=_mapping(content.get("config")),
        problems={task_id: _outcomes(f"{path}: {task_id}", own) for task_id, own in problems.items()},
    )


def _require(path: str, content: Mapping[str, Any], key: str, kind: type) -> Any:
    value = content.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "is missing" if key not in content else f"is {type(value).__name__}, expected {kind.__name__}"
        raise InputError(f'{path}: "{key}" {found}; is this a results.json that evaluate wrote?')
    return value


def _score(where: str, content: Any) -> PassAtKScore:
    content = _mapping(content)
    scores, intervals = _require(where, content, "pass_at_k", dict), _mapping(content.get("confidence_95"))
    found: dict[int, float] = {}
    for k, value in scores.items():
        if not (str(k).isdecimal() and int(k) >= 1 and _is_rate(value)):
            raise InputError(f'{where}: "pass_at_k" must map numbers to rates in [0, 1], found {k!r}: {value!r}')
        found[int(k)] = float(value)
    if 1 not in found:
        raise InputError(f'{where}: "pass_at_k" has no entry for k = 1; run evaluate with --k 1,...')
    pairs = {int(k): (pair[0], pair[1]) for k, pair in intervals.items() if str(k).isdecimal() and _is_interval(pair)}
    return PassAtKScore(
        num_problems=_require(where, content, "num_problems", int), pass_at_k=dict(sorted(found.items())), confidence_95=pairs
    )


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_rate, value))


def _outcomes(where: str, own: Any) -> tuple[SampleOutcome, ...]:
    entries = own if isinstance(own, list) else [own]
    if not all(isinstance(entry, dict) and isinstance(entry.get("passed"), bool) for entry in entries):
        raise InputError(f'{where}: expected a list of objects with "sample_index", "passed", "reason" and "seconds"')
    return tuple(
        SampleOutcome(
            sample_index=_count(entry.get("sample_index", i)),
            passed=entry["passed"],
            reason=str(entry.get("reason", "not recorded")),
            seconds=entry["seconds"] if isinstance(entry.get("seconds"), int | float) else None,
            detail=str(entry.get("detail") or ""),
        )
        for i, entry in enumerate(entries)
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
