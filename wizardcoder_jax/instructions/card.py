"""What a run made: `summary.json` for programs, `data_card.md` for readers. Both depend on settings and answers alone."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.files import open_bytes
from wizardcoder_jax.instructions.methods import METHODS
from wizardcoder_jax.instructions.records import Usage
from wizardcoder_jax.instructions.rules import CONTAMINATED
from wizardcoder_jax.instructions.statistics import RoundStatistics

USD_DECIMALS = 6
TEACHER_FIELDS = {  # what of the settings says who answered; a recording answers as it was recorded
    "openai": ("kind", "base_url", "model", "temperature", "top_p", "max_tokens"),
    "replay": ("kind",),
}


def sha256_of(path: str) -> str:
    """The hash of a file's content: the same records have the same hash, plain or .gz."""
    digest = hashlib.sha256()
    with open_bytes(path) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def summarise(
    config: EvolveConfig,
    rounds: Sequence[RoundStatistics],
    usage: Usage,
    *,
    num_duplicate_seeds: int,
    num_problems: int | None,
) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        config: of the run.
        rounds: round 0 (the seeds), then each round.
        usage: of all records, dropped ones too.
        num_duplicate_seeds: seeds that were left out as repeats.
        num_problems: benchmark problems that records were compared with; None if they were not.
    """
    contaminated = {str(entry.round): entry.rejected[CONTAMINATED] for entry in rounds if entry.rejected[CONTAMINATED]}
    return {
        "num_records": sum(entry.num_kept for entry in rounds),
        "num_rejected": sum(entry.rejected.total() for entry in rounds),
        "num_duplicate_seeds": num_duplicate_seeds,
        "rounds": [entry.to_json() for entry in rounds],
        "num_calls": usage.num_calls,
        "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        "cost_usd": round(usage.usd, USD_DECIMALS),
        "teachers": sorted(set[str]().union(*(entry.teachers for entry in rounds))),
        "teacher": {name: getattr(config.teacher, name) for name in TEACHER_FIELDS[config.teacher.kind]},
        "seed": config.seed,
        "seeds": {"file": os.path.basename(config.seeds), "sha256": sha256_of(config.seeds)},
        "decontamination": None if num_problems is None else {"num_problems": num_problems, "dropped": contaminated},
    }


def data_card(summary: dict[str, Any]) -> str:
    """The content of data_card.md."""
    teacher, seeds, usage = summary["teacher"], summary["seeds"], summary["usage"]
    named = ", ".join(summary["teachers"]) or "none"
    return "\n".join(
        [
            "# Data card",
            "",
            "Instructions and responses made by Code Evol-Instruct (WizardCoder, arXiv 2306.08568).",
            "",
            f"- Records: {summary['num_records']} (all rounds together), {summary['num_rejected']} rejected",
            f"- Seeds: `{seeds['file']}`, sha256 `{seeds['sha256']}`, {summary['num_duplicate_seeds']} repeats left out",
            "- Licence of the seeds: as stated by their source",
            f"- Teacher: {_teacher_line(teacher)}; it names itself: {named}",
            f"- Run seed: {summary['seed']}",
            f"- Calls: {summary['num_calls']}, ${summary['cost_usd']:.4f}, "
            f"{usage['prompt_tokens']} prompt and {usage['completion_tokens']} completion tokens",
            f"- Decontamination: {_contamination_line(summary['decontamination'])}",
            "",
            "## Rounds",
            "",
            *_rounds_table(summary["rounds"]),
            "",
            "Round 0 is the seeds. Methods:",
            "",
            *(f"{method.number}. {method.text}" for method in METHODS),
            "",
        ]
    )


def _teacher_line(teacher: dict[str, Any]) -> str:
    if teacher["kind"] == "replay":
        return "recorded answers (replay)"
    decoding = f"temperature {teacher['temperature']}, top_p {teacher['top_p']}, up to {teacher['max_tokens']} tokens"
    return f"{teacher['model']} at {teacher['base_url']} ({decoding})"


def _contamination_line(decontamination: dict[str, Any] | None) -> str:
    if decontamination is None:
        return "not checked (no --benchmarks-dir)"
    dropped = sum(decontamination["dropped"].values())
    return f"{dropped} records dropped that share text with {decontamination['num_problems']} benchmark problems"


def _rounds_table(rounds: Sequence[dict[str, Any]]) -> list[str]:
    methods = [str(method.number) for method in METHODS]
    rules = sorted({rule for entry in rounds for rule in entry["rejected"]})
    header = ["round", "pool", "kept", *(f"method {number}" for number in methods), *rules]
    rows = [
        [entry["round"], entry["pool"], entry["kept"]]
        + [entry["methods"].get(number, 0) for number in methods]
        + [entry["rejected"].get(rule, 0) for rule in rules]
        for entry in rounds
    ]
    return ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---:"] * len(header), *rows)]
