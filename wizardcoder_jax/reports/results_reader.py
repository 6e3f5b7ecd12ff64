"""Reads results.json: what was measured, strictly enough that a page of it cannot break."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import read_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one sample ended."""

    sample_index: int
    passed: bool
    reason: str
    seconds: float | None
    detail: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassAtKScore:
    """pass@k over some problems, with 95 % intervals."""

    num_problems: int
    pass_at_k: dict[int, float]
    confidence_95: dict[int, tuple[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One results.json."""

    path: str
    benchmark: str
    version: str
    protocol: str
    num_samples: int
    score: PassAtKScore
    libraries: dict[str, PassAtKScore]  # of a benchmark in groups
    runnable: PassAtKScore | None  # of the problems whose reference runs in this environment
    missing: int  # problems without a sample
    tier: str  # of the sandbox
    num_forgeable: int
    meta: dict[str, Any]  # settings of the samples
    environment: dict[str, Any]
    config: dict[str, Any]
    problems: dict[str, tuple[Outcome, ...]]

    @property
    def model(self) -> str:
        """The model's name, as the samples were asked of it; the file's name where that is not recorded."""
        return str(self.meta.get("model") or self.path)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """(number of samples, number that passed), by task id."""
        return {task_id: (len(own), sum(outcome.passed for outcome in own)) for task_id, own in self.problems.items()}


def read_result(path: str) -> Result:
    """The results file at `path`.

    Raises:
        InputError: it is missing or something else; the key is named.
    """
    content = read_json(path)
    texts = {key: _of_kind(path, content, key, str) for key in ("benchmark", "benchmark_version", "protocol")}
    problems = _of_kind(path, content, "problems", dict)
    sandbox, libraries = _mapping(content.get("sandbox")), _mapping(content.get("libraries"))
    runnable, missing = content.get("runnable"), content.get("missing")
    if not problems:
        raise InputError(f'{path}: "problems" is empty; nothing was evaluated')
    return Result(
        path=path,
        benchmark=texts["benchmark"],
        version=texts["benchmark_version"],
        protocol=texts["protocol"],
        num_samples=_of_kind(path, content, "num_samples", int),
        score=_score(path, content),
        libraries={str(name): _score(f'{path}: "libraries"', own) for name, own in libraries.items()},
        runnable=_score(f'{path}: "runnable"', runnable) if isinstance(runnable, dict) and "pass_at_k" in runnable else None,
        missing=len(missing) if isinstance(missing, list) else 0,
        tier=str(sandbox.get("tier", "not recorded")),
        num_forgeable=_count(sandbox.get("forgeable_verdicts")),
        meta=_mapping(content.get("samples_meta")),
        environment=_mapping(content.get("environment")),
        config=_mapping(content.get("config")),
        problems={task_id: _outcomes(f"{path}: {task_id}", own) for task_id, own in problems.items()},
    )


def _of_kind(path: str, content: Mapping[str, Any], key: str, kind: type) -> Any:
    value = content.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "is missing" if key not in content else f"is {type(value).__name__}, expected {kind.__name__}"
        raise InputError(f'{path}: "{key}" {found}; is this a results.json that evaluate wrote?')
    return value


def _score(place: str, content: Any) -> PassAtKScore:
    content = _mapping(content)
    scores, intervals = _of_kind(place, content, "pass_at_k", dict), _mapping(content.get("confidence_95"))
    found: dict[int, float] = {}
    for k, value in scores.items():
        if not (str(k).isdecimal() and int(k) >= 1 and _is_rate(value)):
            raise InputError(f'{place}: "pass_at_k" must map numbers to rates in [0, 1], found {k!r}: {value!r}')
        found[int(k)] = float(value)
    if 1 not in found:
        raise InputError(f'{place}: "pass_at_k" has no "1"; evaluate with --k 1,...')
    pairs = {int(k): (pair[0], pair[1]) for k, pair in intervals.items() if str(k).isdecimal() and _is_interval(pair)}
    return PassAtKScore(
        num_problems=_of_kind(place, content, "num_problems", int), pass_at_k=dict(sorted(found.items())), confidence_95=pairs
    )


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_rate, value))


def _outcomes(place: str, own: Any) -> tuple[Outcome, ...]:
    entries = own if isinstance(own, list) else [own]
    if not all(isinstance(entry, dict) and isinstance(entry.get("passed"), bool) for entry in entries):
        raise InputError(f'{place}: expected a list of {{"sample_index", "passed", "reason", "seconds"}}')
    return tuple(
        Outcome(
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
