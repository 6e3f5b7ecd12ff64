"""The page of a run's lineage: one self-contained file that needs nothing from outside."""

import json
import os
from typing import Any

from wizardcoder_jax.core.filesystem import atomic_write
from wizardcoder_jax.reports.html_escape import escaped, short
from wizardcoder_jax.reports.lineage import lineage_charts
from wizardcoder_jax.reports.lineage.evolve_run import EvolveRun, shown
from wizardcoder_jax.reports.lineage.lineage_counts import LineageCounts
from wizardcoder_jax.reports.lineage.lineage_trees import MAX_PACKED_BYTES, Forest, fitting, plant
from wizardcoder_jax.reports.page_head import asset, head

_KEYS = (
    "<kbd>/</kbd> search, <kbd>j</kbd> <kbd>k</kbd> or arrows next and previous, <kbd>Enter</kbd> into the tree, "
    "<kbd>d</kbd> differences or text"
)


def write_page(path: str, run: EvolveRun, counts: LineageCounts) -> None:
    """Writes the page.

    Args:
        path: of the page.
        run: whose entries are read once more.
        counts: of all its entries.
    """
    number = fitting(counts)
    forest = plant(counts, run.entries(), number)
    while forest.num_bytes > MAX_PACKED_BYTES and number > 1:  # texts that compress badly
        number = max(1, int(0.95 * number * MAX_PACKED_BYTES / forest.num_bytes))
        forest = plant(counts, run.entries(), number)
    style, script = asset("page.css", "lineage.css"), asset("diff.js", "lineage.js")
    summary = run.summary()
    with atomic_write(path) as file:
        file.write(f'<!doctype html>\n<html lang="en">{head(_title(summary), style, [script])}'.encode())
        file.write(_body(summary, counts, forest).encode("utf-8", "replace"))
        kind = "text/plain" if forest.is_packed else "application/json"
        file.write(f'<script type="{kind}" id="index">{forest.index}</script>\n'.encode("utf-8", "replace"))
        for i, part in enumerate(forest.parts):
            file.write(f'<script type="{kind}" id="part-{i}">{part}</script>\n'.encode("utf-8", "replace"))
        file.write(f"<script>{script}</script></body></html>\n".encode())


def _title(summary: dict[str, Any]) -> str:
    seeds = summary.get("seeds")
    name = seeds.get("file") if isinstance(seeds, dict) else None
    return "Lineage" + (f" of {short(os.path.basename(name), 60)}" if isinstance(name, str) and name else "")


def _method_names(summary: dict[str, Any]) -> dict[int, str]:
    """Names of the methods by number, where the summary has them."""
    names = summary.get("method_names")
    known = names.items() if isinstance(names, dict) else ()
    return {int(number): shown(name, 40) for number, name in known if number.isdigit() and isinstance(name, str)}


def _body(summary: dict[str, Any], counts: LineageCounts, forest: Forest) -> str:
    names = _method_names(summary)
    lengths = "".join(
        lineage_charts.lengths(counts, f"{field}_lengths", what)
        for field, what in (("instruction", "instructions"), ("output", "responses"))
    )
    pictures = lineage_charts.methods(counts, names)
    return (
        '<body class="lineage"><a class="skip" href="#trees">Skip to the trees</a>'
        f"<header><h1>{_title(summary)}</h1>{_intro(counts)}{_figures(summary, counts)}</header><main>"
        f'<section><h2>What the rules left</h2><p class="note">Each step shows what it dropped, the bar what was left of the '
        f"round's pool. A rejected evolution returns its parent to the next pool. The name of a rule shows its trees.</p>"
        f"{lineage_charts.funnel(counts)}</section>"
        f'<section><h2>Methods and lengths</h2>{pictures}<div class="columns">{lengths}</div></section>'
        f'<section><h2 id="trees" tabindex="-1">Trees</h2>{_sample_note(counts, forest)}{_tools(counts, names)}'
        '<noscript><p class="warning">The trees need scripts; everything above does without.</p></noscript>'
        '<div class="browser" hidden><div class="list" role="listbox" tabindex="0" aria-label="Trees, by their seeds">'
        '<div class="rows" role="presentation"></div></div>'
        '<article class="tree" tabindex="-1" aria-label="Tree"></article></div>'
        f"</section></main>{_meta(counts, names)}"
    )


def _intro(counts: LineageCounts) -> str:
    seeds = counts.rounds[0].kept if 0 in counts.rounds else 0
    last = max(counts.rounds, default=0)
    rounds = "no round" if last == 0 else "1 round" if last == 1 else f"{last} rounds"
    return (
        f"<p>{_many(seeds, 'seed')} and {_many(counts.num_kept - seeds, 'record')} evolved from them in {rounds}; "
        f"{_many(counts.num_rejected, 'outcome')} rejected. Every record with its parent, and what became of it.</p>"
    )


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _figures(summary: dict[str, Any], counts: LineageCounts) -> str:
    cost = summary.get("cost_usd")
    tiles = [
        ("records", f"{counts.num_kept:,}"),
        ("rejected", f"{counts.num_rejected:,}"),
        ("prompt tokens", f"{counts.prompt_tokens:,}"),
        ("completion tokens", f"{counts.completion_tokens:,}"),
        *([("cost", f"${cost:,.2f}")] if isinstance(cost, (int, float)) and cost else []),
        ("teacher", ", ".join(sorted(counts.teachers)) or "none"),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd>{short(value, 60)}</dd></div>" for name, value in tiles)
    return f'<dl class="tiles">{cells}</dl>'


def _sample_note(counts: LineageCounts, forest: Forest) -> str:
    total = len(counts.trees)
    if forest.num_trees == total:
        return ""
    return (
        f'<p class="warning">So that this page opens quickly, it shows {forest.num_trees:,} of the {total:,} trees, evenly '
        "spaced over the seeds. Everything above counts all of them; evolved.jsonl and rejected.jsonl hold them.</p>"
    )


def _tools(counts: LineageCounts, names: dict[int, str]) -> str:
    used = sorted({n for r in counts.rounds.values() for n in (*r.kept_by_method, *r.rejected_by_method)})
    methods = [("", "any method"), *((str(number), names.get(number, f"method {number}")) for number in used)]
    rules = [("", "any outcome"), ("kept", "all kept"), ("any", "any rejection")]
    rules += [(str(i), rule) for i, rule in enumerate(counts.rules)]
    selects = "".join(
        f'<select id="{key}" aria-label="{label}">'
        + "".join(f'<option value="{value}">{short(text, 60)}</option>' for value, text in options)
        + "</select>"
        for key, label, options in (("method", "Method", methods), ("rule", "Outcome", rules))
    )
    return (
        '<div class="tools" hidden><input type="search" id="search" placeholder="instruction, response, id, method, rule" '
        f'aria-label="Search the trees">{selects}<label><input type="checkbox" id="diff" checked> differences</label>'
        f'<span class="note" role="status"></span><span class="note keys">{_KEYS}</span></div>'
    )


def _meta(counts: LineageCounts, names: dict[int, str]) -> str:
    content = json.dumps({"rules": [shown(rule, 200) for rule in counts.rules], "methods": names})
    return f'<template id="meta" data-json="{escaped(content)}"></template>'
