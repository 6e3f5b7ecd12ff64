"""Renderer of data_card.md, which describes a run for human readers and is a dataset card for the Hugging Face Hub."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from wizardcoder_jax.evol_instruct.elimination_rules import MALICIOUS_REQUEST
from wizardcoder_jax.evol_instruct.methods import BREADTH, METHODS

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_HUB_LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0", "bsd-3-clause", "gpl-3.0"}
_MEASURES = {
    "instruction_words": "words of the instruction",
    "instruction_sentences": "sentences of the instruction",
    "instruction_constraints": "constraints in the instruction",
    "code_nodes": "syntax tree nodes of the Python",
    "code_complexity": "cyclomatic complexity of the Python",
    "code_nesting": "nesting depth of the Python",
}
_DIVERSITY = {
    "distinct_1": "distinct-1 of instructions",
    "distinct_2": "distinct-2 of instructions",
    "mean_pairwise_jaccard": "mean pairwise Jaccard (word pairs)",
    "new_vocabulary": "share of words that are new in this round",
}
_ROUND_0 = {
    "instructions": "Round 0 consists of the seeds.",
    "snippets": "Round 0 consists of problems that the teacher invented, inspired by the seeds, which are code snippets.",
}
_RISKS = (
    "Every record may have the teacher's mistakes, style and biases. Responses are unedited, and their code is unverified "
    "unless the execution filter is on.",
    "A teacher may reproduce texts and code from its training data, which have their own licenses.",
    "Decontamination finds records that share text or code structure with known problems. Paraphrases and translations may "
    "remain.",
    "If the rule `malicious_request` is on, requests for malicious code are dropped and written to malicious.jsonl only. "
    "Requests that it does not recognize remain.",
    "Difficulty and diversity are simple counts on a sample. They show how rounds differ, not how good a record is.",
)


def render_data_card(summary: dict[str, Any]) -> str:
    """Return the content of data_card.md.

    Args:
        summary: the content of summary.json.
    """
    sections = [
        _header(summary),
        ["# Data card", "", "Instructions and responses generated with Code Evol-Instruct (WizardCoder, arXiv 2306.08568)."],
        _content(summary),
        ["## Licenses and terms", "", *_licenses(summary)],
        ["## Teacher", "", *_teacher(summary)],
        ["## Rounds", "", *_rounds(summary["rounds"]), "", _ROUND_0[summary["seeds"]["kind"]]],
        ["## Methods", "", *_methods(summary["rounds"])],
        ["## Filters", "", *_filters(summary["rounds"])],
        ["## Contamination", "", *_contamination(summary["decontamination"])],
        ["## Lengths, difficulty and diversity", "", *_measures(summary["rounds"])],
        ["## Known risks", "", *(f"- {risk}" for risk in _RISKS)],
        ["## How to reproduce it", "", *_reproduction(summary)],
    ]
    return "\n".join(line for section in sections for line in [*section, ""])


def inline_code(text: object) -> str:
    """Return `text` as Markdown inline code on one line, so that none of its characters act as markup."""
    line = " ".join(str(text).split()).replace("`", "'").replace("|", "\u00a6")
    return f"`{line or ' '}`"


def _header(summary: dict[str, Any]) -> list[str]:
    """Return the YAML header for the Hub. Values given by the user are quoted, so that they cannot add YAML fields."""
    license_ = (summary["seeds"]["licence"] or "unknown").lower()
    number = summary["num_records"]
    is_known = license_ in (*_HUB_LICENSES, "unknown")
    return [
        "---",
        f"license: {license_ if is_known else 'other'}",
        *([] if is_known else [f"license_name: {json.dumps(summary['seeds']['licence'])}"]),
        "task_categories:",
        "- text-generation",
        "language:",
        "- en",
        "size_categories:",
        f"- {next((name for limit, name in _SIZES if number < limit), 'n>10M')}",
        "tags:",
        "- code",
        "- synthetic",
        "- instruction-tuning",
        "configs:",
        "- config_name: default",
        "  data_files: evolved.jsonl",
        "---",
    ]


def _content(summary: dict[str, Any]) -> list[str]:
    seeds, usage = summary["seeds"], summary["usage"]
    files = [
        f"- {inline_code(name)}: sha256 {inline_code(file['sha256'])}, {file['num_bytes']} bytes"
        for name, file in summary["files"].items()
    ]
    return [
        f"- Records: {summary['num_records']} (all rounds together), {summary['num_rejected']} rejected",
        f"- Seeds: {inline_code(seeds['file'])}, sha256 {inline_code(seeds['sha256'])}, "
        f"{summary['num_duplicate_seeds']} duplicates skipped",
        *files,
        f"- Calls: {summary['num_calls']}, ${summary['cost_usd']:.4f}, "
        f"{usage['prompt_tokens']} prompt and {usage['completion_tokens']} completion tokens",
        f"- Run seed: {summary['seed']}",
    ]


def _licenses(summary: dict[str, Any]) -> list[str]:
    seeds = summary["seeds"]
    if seeds["is_code_alpaca"]:
        license_text = (
            f"{inline_code(seeds['licence'])}. They are from Code Alpaca, published under CC BY-NC 4.0: no commercial use, "
            "including derived works"
        )
    elif seeds["licence"]:
        license_text = f"{inline_code(seeds['licence'])}, from --seed-licence"
    else:
        license_text = "unknown; look it up at their source, and state it with --seed-licence (Code Alpaca has CC-BY-NC-4.0)"
    if summary["teacher"]["terms"] == "openai":
        terms = (
            "OpenAI's terms of use: its output may not be used to develop models that compete with OpenAI's, which applies to "
            "all users of these records"
        )
    else:
        terms = "those of the teacher's provider or the license of the model; some forbid training other models on the output"
    return [f"- License of the seeds: {license_text}.", f"- Terms of the teacher: {terms}."]


def _teacher(summary: dict[str, Any]) -> list[str]:
    teacher = summary["teacher"]
    names = ", ".join(inline_code(name) for name in summary["teachers"]) or "none"
    if teacher["kind"] == "replay":
        return ["- Teacher: recorded answers (replay)", f"- Model names in the answers: {names}"]
    at = f" at {inline_code(teacher['base_url'])}" if "base_url" in teacher else ", run locally"
    return [
        f"- Teacher: {inline_code(teacher['model'])}{at}",
        f"- Decoding: temperature {teacher['temperature']}, top_p {teacher['top_p']}, up to {teacher['max_tokens']} tokens",
        f"- Model names in the answers: {names}",
    ]


def _rounds(rounds: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        [
            *(entry["round"], entry["pool"], entry["kept"], _percent(entry["kept"], entry["pool"])),
            *(entry["usage"]["prompt_tokens"], entry["usage"]["completion_tokens"]),
            *(_format_counts(entry["tasks"]), _format_counts(entry["languages"])),
        ]
        for entry in rounds
    ]
    header = ["round", "pool", "kept", "share", "prompt tokens", "completion tokens", "tasks", "languages"]
    return _table(header, rows)


def _methods(rounds: Sequence[dict[str, Any]]) -> list[str]:
    evolved = [entry for entry in rounds if entry["round"]]
    rows = [
        [
            f"{method.number}. {method.name}",
            *(f"{kept} ({_percent(kept, kept + dropped)})" for kept, dropped in _by_method(evolved, str(method.number))),
        ]
        for method in (*METHODS, BREADTH)
        if any(sum(counts) for counts in _by_method(evolved, str(method.number)))
    ]
    lines = _table(["method", *(f"round {entry['round']}, kept" for entry in evolved)], rows) if rows else ["No evolution."]
    return [*lines, "", *(f"{method.number}. {' '.join(method.text.split())}" for method in (*METHODS, BREADTH))]


def _by_method(rounds: Sequence[dict[str, Any]], number: str) -> list[tuple[int, int]]:
    return [(entry["methods"].get(number, 0), entry["methods_rejected"].get(number, 0)) for entry in rounds]


def _filters(rounds: Sequence[dict[str, Any]]) -> list[str]:
    rules = sorted({rule for entry in rounds for rule in entry["rejected"]})
    if not rules:
        return ["No record was rejected."]
    rows = [
        [
            inline_code(rule),
            *(f"{n} ({_percent(n, entry['pool'])})" for entry in rounds for n in [entry["rejected"].get(rule, 0)]),
        ]
        for rule in rules
    ]
    num_malicious = sum(entry["rejected"].get(MALICIOUS_REQUEST, 0) for entry in rounds)
    malicious_line = f"{num_malicious} records are requests for malicious code; their texts are in malicious.jsonl only."
    lines = _table(["rejected by", *(f"round {entry['round']}" for entry in rounds)], rows)
    return [*lines, "", malicious_line] if num_malicious else lines


def _contamination(decontamination: dict[str, Any] | None) -> list[str]:
    if decontamination is None:
        return ["Not checked (no --benchmarks-dir)."]
    dropped = sum(decontamination["dropped"].values())
    num_problems = decontamination["num_problems"]
    lines = [f"{dropped} records dropped because they share text with one of {num_problems} benchmark problems."]
    if decontamination["tiers"]:
        benchmarks = {inline_code(name): number for name, number in decontamination["benchmarks"].items()}
        found = f"Found by: {_format_counts(decontamination['tiers'])}. Benchmarks: {_format_counts(benchmarks)}. Examples:"
        lines += ["", found, ""]
        lines += [
            f"- {inline_code(example['id'])}: {inline_code(example['evidence'])}" for example in decontamination["examples"]
        ]
    return lines


def _measures(rounds: Sequence[dict[str, Any]]) -> list[str]:
    rows: list[list[Any]] = []
    for part in ("instruction", "output"):
        lengths = [entry["lengths"][part] for entry in rounds]
        name = "characters of the instruction" if part == "instruction" else "characters of the response"
        rows.append([f"{name}: median (10 to 90 %)", *(_format_quantiles(own) for own in lengths)])
    for key, name in _MEASURES.items():
        rows.append([f"{name}: mean (change from the parent)", *(_format_mean(entry["difficulty"][key]) for entry in rounds)])
    for key, name in _DIVERSITY.items():
        rows.append([name, *(_format_number(entry["diversity"][key]) for entry in rounds)])
    rows.append(["records in the sample for difficulty and diversity", *(entry["num_sampled"] for entry in rounds)])
    return _table(["measure", *(f"round {entry['round']}" for entry in rounds)], rows)


def _reproduction(summary: dict[str, Any]) -> list[str]:
    # Indent the command instead of fencing it, because a setting could contain text that ends a fence.
    command = " ".join(summary["command"].split())
    return [f"    {command}", "", "If DIR contains the ledger.sqlite of the run, all answers are replayed."]


def _format_quantiles(own: dict[str, Any]) -> str:
    return "-" if own["p50"] is None else f"{own['p50']} ({own['p10']} to {own['p90']})"


def _format_mean(own: dict[str, Any]) -> str:
    change = "" if own["change"] is None else f" ({own['change']:+g})"
    return f"{_format_number(own['mean'])}{change}"


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _format_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items()) or "-"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    return ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---", *["---:"] * (len(header) - 1)], *rows)]
