"""The content of summary.json: the counts and settings of a run. It depends only on the settings and the teacher's answers."""

import dataclasses
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.core.file_hash import file_sha256
from wizardcoder_jax.evol_instruct.elimination_rules import CONTAMINATED
from wizardcoder_jax.evol_instruct.licenses import CODE_ALPACA_LICENSE, is_code_alpaca_name, is_openai
from wizardcoder_jax.evol_instruct.methods import BREADTH, METHODS
from wizardcoder_jax.evol_instruct.records import Usage
from wizardcoder_jax.evol_instruct.round_statistics import RoundStatistics

USD_DECIMALS = 6
TEACHER_FIELDS = {  # for each kind of teacher, the settings that determine its answers
    "openai": ("kind", "base_url", "model", "temperature", "top_p", "max_tokens"),
    "model": ("kind", "model", "temperature", "top_p", "max_tokens"),
    "replay": ("kind",),
}
# Settings that do not change the records of a run, and are therefore left out of the command in the summary.
_MACHINE_SETTINGS = {
    *("output_dir", "overwrite", "max_usd", "max_requests", "max_tokens", "lineage", "exports", "seed_licence"),
    *("teacher.concurrency", "teacher.timeout_s", "teacher.max_attempts"),
    *("teacher.requests_per_minute", "teacher.tokens_per_minute"),
    *("teacher.usd_per_million_prompt_tokens", "teacher.usd_per_million_completion_tokens"),
}
_PATHS = {"seeds", "benchmarks_dir", "teacher.replay_file"}  # path settings; the command shows only their last component
MAX_EXAMPLES_SHOWN = 5  # maximum number of contaminated records shown as examples


def describe_files(folder: str | os.PathLike[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the SHA-256 hash and the size in bytes of each of the named files in a folder."""
    paths = {name: os.path.join(folder, name) for name in names}
    return {name: {"sha256": file_sha256(path), "num_bytes": os.path.getsize(path)} for name, path in paths.items()}


def summarize(
    config: EvolveConfig,
    rounds: Sequence[RoundStatistics],
    *,
    seeds_sha256: str,
    num_duplicate_seeds: int,
    num_problems: int | None,
) -> dict[str, Any]:
    """Return the content of summary.json.

    Args:
        config: settings of the run.
        rounds: statistics of round 0 (the seeds), then of each later round.
        seeds_sha256: hash of the seed file, or of the code snippets from which the seeds were made.
        num_duplicate_seeds: number of duplicate seeds that were skipped.
        num_problems: number of benchmark problems used for decontamination; None if there was no decontamination.
    """
    usage = sum((entry.usage for entry in rounds), Usage())
    teachers = sorted(set[str]().union(*(entry.teachers for entry in rounds)))
    return {
        "num_records": sum(entry.num_kept for entry in rounds),
        "num_rejected": sum(entry.rejected.total() for entry in rounds),
        "num_duplicate_seeds": num_duplicate_seeds,
        "rounds": [entry.to_json(rounds[:i]) for i, entry in enumerate(rounds)],
        "method_names": {str(method.number): method.name for method in (*METHODS, BREADTH)},
        "num_calls": usage.num_calls,
        "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        "cost_usd": round(usage.usd, USD_DECIMALS),
        "teachers": teachers,
        "teacher": _teacher(config, teachers),
        "seed": config.seed,
        "seeds": _seeds(config, rounds, seeds_sha256),
        "decontamination": None if num_problems is None else _decontamination(rounds, num_problems),
        "command": _command(config),
    }


def _teacher(config: EvolveConfig, teachers: Sequence[str]) -> dict[str, Any]:
    settings = {name: getattr(config.teacher, name) for name in TEACHER_FIELDS[config.teacher.kind]}
    names = [*teachers, *([settings["model"]] if "model" in settings else [])]
    return {**settings, "terms": "openai" if is_openai(settings.get("base_url"), names) else None}


def _seeds(config: EvolveConfig, rounds: Sequence[RoundStatistics], sha256: str) -> dict[str, Any]:
    name = os.path.basename(os.path.normpath(config.seeds))
    is_code_alpaca = is_code_alpaca_name(name) or any(entry.has_code_alpaca for entry in rounds)
    license_ = config.seed_licence or (CODE_ALPACA_LICENSE if is_code_alpaca else None)
    return {
        "file": name,
        "kind": config.seeds_kind,
        "sha256": sha256,
        "licence": license_,
        "is_code_alpaca": is_code_alpaca,
    }


def _decontamination(rounds: Sequence[RoundStatistics], num_problems: int) -> dict[str, Any]:
    tiers, benchmarks = (
        dict(sorted(sum((getattr(entry, name) for entry in rounds), Counter[str]()).items()))
        for name in ("tiers", "benchmarks")
    )
    examples = [example for entry in rounds for example in entry.examples.get(CONTAMINATED, ())]
    return {
        "num_problems": num_problems,
        "dropped": {str(entry.round): entry.rejected[CONTAMINATED] for entry in rounds if entry.rejected[CONTAMINATED]},
        "tiers": tiers,
        "benchmarks": benchmarks,
        "examples": [{"id": id_, "evidence": evidence} for id_, evidence in examples[:MAX_EXAMPLES_SHOWN]],
    }


def _command(config: EvolveConfig) -> str:
    """Return a command that recreates the records in any folder, provided that the teacher gives the same answers."""
    arguments = ["python", "-m", "wizardcoder_jax.evolve"]
    for name, value in _non_default_settings(config, ""):
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(flag if value else re.sub(r"(--|\.)(?=[^.]*$)", r"\1no-", flag, count=1))
        elif isinstance(value, (tuple, list)):
            arguments += [flag, *(shlex.quote(str(entry)) for entry in value)]
        else:
            shown = os.path.basename(os.path.normpath(value)) if name in _PATHS else value
            arguments += [flag, shlex.quote(str(shown))]
    return " ".join([*arguments, "--output-dir", "DIR"])


def _non_default_settings(settings: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of each setting that affects the records and does not have its default value."""
    for field in dataclasses.fields(settings):
        name, value = f"{prefix}{field.name}", getattr(settings, field.name)
        if name in _MACHINE_SETTINGS:
            continue
        if dataclasses.is_dataclass(value):
            yield from _non_default_settings(value, f"{name}.")
        elif field.default is dataclasses.MISSING or value != field.default:
            yield name, value
