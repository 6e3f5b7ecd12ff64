"""What a run made: `summary.json` for programs, `data_card.md` for readers. Both depend on settings and answers alone."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.files import open_bytes
from wizardcoder_jax.instructions.methods import METHODS
from wizardcoder_jax.instructions.records import Usage
from wizardcoder_jax.instructions.rounds import RoundResult
from wizardcoder_jax.instructions.rules import CONTAMINATED

USD_DECIMALS = 6
TEACHER_FIELDS = {  # what of the settings says who answered; a recording answers as it was recorded
    "openai": ("kind", "base_url", "model", "temperature", "top_p", "max_tokens"),
    "replay": ("kind",),
}


def sha256_of(path: str) -> str:
    """The hash of a file's content: the same records have the same hash, plain or .gz."""
    with open_bytes(path) as file:
        return hashlib.sha256(file.read()).hexdigest()


def summarise(
    config: EvolveConfig, results: Sequence[RoundResult], *, num_duplicate_seeds: int, num_problems: int | None
) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        config: of the run.
        results: round 0 (the seeds), then each round.
        num_duplicate_seeds: seeds that were left out as repeats.
        num_problems: benchmark problems that records were compared with; None if they were not.
    """
    rejections = [rejection for result in results for rejection in result.rejected]
    usage = sum((record.usage for result in results for record in result.kept), Usage())
    usage = sum((rejection.record.usage for rejection in rejections), usage)
    contaminated = Counter(rejection.record.round for rejection in rejections if rejection.rule == CONTAMINATED)
    return {
        "num_records": sum(len(result.kept) for result in results),
        "num_rejected": len(rejections),
        "num_duplicate_seeds": num_duplicate_seeds,
        "rounds": [_counts(result) for result in results],
        "num_calls": usage.num_calls,
        "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        "cost_usd": round(usage.usd, USD_DECIMALS),
        "teachers": sorted({record.teacher for result in results for record in result.kept if record.teacher}),
        "teacher": {name: getattr(config.teacher, name) for name in TEACHER_FIELDS[config.teacher.kind]},
        "seed": config.seed,
        "seeds": {"file": os.path.basename(config.seeds), "sha256": sha256_of(config.seeds)},
        "decontamination": None
        if num_problems is None
        else {"num_problems": num_problems, "dropped": {str(round_): n for round_, n in sorted(contaminated.items())}},
    }


def _counts(result: RoundResult) -> dict[str, Any]:
    methods = Counter(record.method for record in result.kept if record.method is not None)
    return {
        "round": result.round,
        "pool": result.pool_size,
        "kept": len(result.kept),
        "rejected": dict(sorted(Counter(rejection.rule for rejection in result.rejected).items())),
        "methods": {str(number): methods[number] for number in sorted(methods)},
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
