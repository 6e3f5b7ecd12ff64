"""What a run made, for readers: data_card.md, a function of summary.json; also the card of a dataset on the hub."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from wizardcoder_jax.evol_instruct.elimination_rules import MALICIOUS_REQUEST
from wizardcoder_jax.evol_instruct.methods import BREADTH, METHODS

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_HUB_LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0", "bsd-3-clause", "gpl-3.0"}
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
    "new_vocabulary": "share of words that earlier rounds lack",
}
_ROUND_0 = {
    "instructions": "Round 0 is the seeds.",
    "snippets": "Round 0 is the problems that the teacher made of the seeds, which are snippets of code.",
}
_RISKS = (
    "The teacher's mistakes, style and biases are in every record; responses are as the teacher wrote them, and code in them "
    "is unverified unless the execution filter is named below.",
    "A teacher may recite texts and code that it was trained on, with licences of their own.",
    "Decontamination finds what shares text or the shape of code with known problems; paraphrases and translations may remain.",
    "Requests for malicious code are dropped by rule `malicious_request` where it is on, and kept apart in malicious.jsonl; "
    "what no rule recognises remains.",
    "Difficulty and diversity are measured on a sample, by counting; they say how rounds differ, not how good a record is.",
)


def render_data_card(summary: dict[str, Any]) -> str:
    """The content of data_card.md."""
    sections = [
        _header(summary),
        ["# Data card", "", "Instructions and responses made by Code Evol-Instruct (WizardCoder, arXiv 2306.08568)."],
        _content(summary),
        ["## Licences and terms", "", *_licences(summary)],
        ["## Teacher", "", *_teacher(summary)],
        ["## Rounds", "", *_rounds(summary["rounds"]), "", _ROUND_0[summary["seeds"]["kind"]]],
        ["## Methods", "", *_methods(summary["rounds"])],
        ["## Filters", "", *_filters(summary["rounds"])],
        ["## Contamination", "", *_contamination(summary["decontamination"])],
        ["## Lengths, difficulty, diversity", "", *_measures(summary["rounds"])],
        ["## Known risks", "", *(f"- {risk}" for risk in _RISKS)],
        ["## How to make it again", "", *_again(summary)],
    ]
    return "\n".join(line for section in sections for line in [*section, ""])


def inline_code(text: object) -> str:
    """`text` as inline code of Markdown, on one line: nothing in it is markup."""
    line = " ".join(str(text).split()).replace("`", "'").replace("|", "\u00a6")
    return f"`{line or ' '}`"


def _header(summary: dict[str, Any]) -> list[str]:
    """The YAML block that the hub reads; its lines are ours, but for quoted names."""
    licence = (summary["seeds"]["licence"] or "unknown").lower()
    number = summary["num_records"]
    known = licence in (*_HUB_LICENCES, "unknown")
    return [
        "---",
        f"license: {licence if known else 'other'}",
        *([] if known else [f"license_name: {json.dumps(summary['seeds']['licence'])}"]),
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
        f"{summary['num_duplicate_seeds']} repeats left out",
        *files,
        f"- Calls: {summary['num_calls']}, ${summary['cost_usd']:.4f}, "
        f"{usage['prompt_tokens']} prompt and {usage['completion_tokens']} completion tokens",
        f"- Run seed: {summary['seed']}",
    ]


def _licences(summary: dict[str, Any]) -> list[str]:
    seeds = summary["seeds"]
    if seeds["is_code_alpaca"]:
        said = (
            f"{inline_code(seeds['licence'])}. They are Code Alpaca's, published under CC BY-NC 4.0: no commercial use, "
            "and what is made of them carries the same condition"
        )
    elif seeds["licence"]:
        said = f"{inline_code(seeds['licence'])}, as --seed-licence states"
    else:
        said = "not stated; ask their source, and name it with --seed-licence (Code Alpaca's seeds, for one, are CC-BY-NC-4.0)"
    if summary["teacher"]["terms"] == "openai":
        terms = (
            "OpenAI's terms of use: its output may not be used to develop models that compete with OpenAI's; who uses these "
            "records is bound by them"
        )
    else:
        terms = "as stated by the teacher's provider or the model's licence; some forbid training other models on the output"
    return [f"- Licence of the seeds: {said}.", f"- Terms of the teacher: {terms}."]


def _teacher(summary: dict[str, Any]) -> list[str]:
    teacher = summary["teacher"]
    named = ", ".join(inline_code(name) for name in summary["teachers"]) or "none"
    if teacher["kind"] == "replay":
        return ["- Teacher: recorded answers (replay)", f"- It names itself: {named}"]
    at = f" at {inline_code(teacher['base_url'])}" if "base_url" in teacher else ", run by this program"
    return [
        f"- Teacher: {inline_code(teacher['model'])}{at}",
        f"- Decoding: temperature {teacher['temperature']}, top_p {teacher['top_p']}, up to {teacher['max_tokens']} tokens",
        f"- It names itself: {named}",
    ]


def _rounds(rounds: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        [
            *(entry["round"], entry["pool"], entry["kept"], _percent(entry["kept"], entry["pool"])),
            *(entry["usage"]["prompt_tokens"], entry["usage"]["completion_tokens"]),
            *(_listed(entry["tasks"]), _listed(entry["languages"])),
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
    apart = f"{num_malicious} of them are requests for malicious code; their texts are in malicious.jsonl alone."
    lines = _table(["rejected by", *(f"round {entry['round']}" for entry in rounds)], rows)
    return [*lines, "", apart] if num_malicious else lines


def _contamination(decontamination: dict[str, Any] | None) -> list[str]:
    if decontamination is None:
        return ["Not checked (no --benchmarks-dir)."]
    dropped = sum(decontamination["dropped"].values())
    lines = [f"{dropped} records dropped that share text with {decontamination['num_problems']} benchmark problems."]
    if decontamination["tiers"]:
        benchmarks = {inline_code(name): number for name, number in decontamination["benchmarks"].items()}
        found = f"Found by: {_listed(decontamination['tiers'])}. Problems of: {_listed(benchmarks)}. For instance:"
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
        rows.append([f"{name}: median (10 to 90 %)", *(_spread(own) for own in lengths)])
    for key, name in _MEASURES.items():
        rows.append([f"{name}: mean (gain over the parent)", *(_gain(entry["difficulty"][key]) for entry in rounds)])
    for key, name in _DIVERSITY.items():
        rows.append([name, *(_number(entry["diversity"][key]) for entry in rounds)])
    rows.append(["records measured for difficulty and diversity", *(entry["num_sampled"] for entry in rounds)])
    return _table(["measure", *(f"round {entry['round']}" for entry in rounds)], rows)


def _again(summary: dict[str, Any]) -> list[str]:
    # Indented, not fenced: no text of a setting can end the block.
    return [f"    {' '.join(summary['command'].split())}", "", "With the run's ledger.sqlite in DIR every answer is replayed."]


def _spread(own: dict[str, Any]) -> str:
    return "-" if own["p50"] is None else f"{own['p50']} ({own['p10']} to {own['p90']})"


def _gain(own: dict[str, Any]) -> str:
    gained = "" if own["change"] is None else f" ({own['change']:+g})"
    return f"{_number(own['mean'])}{gained}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items()) or "-"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    return ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---", *["---:"] * (len(header) - 1)], *rows)]
