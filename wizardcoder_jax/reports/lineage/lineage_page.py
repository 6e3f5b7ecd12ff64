"""Writer of the lineage page: header, charts and trees. It writes the page piece by piece, because the trees may be large."""

import json
import os
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from wizardcoder_jax.core.filesystem import atomic_write
from wizardcoder_jax.reports.html_page import render_page
from wizardcoder_jax.reports.lineage.evolve_run import EvolveRun, excerpt
from wizardcoder_jax.reports.lineage.lineage_charts import build_funnel, build_length_chart, build_method_chart
from wizardcoder_jax.reports.lineage.lineage_counts import LineageCounts
from wizardcoder_jax.reports.lineage.lineage_trees import MAX_PACKED_BYTES, TreeData, max_trees, pack_trees
from wizardcoder_jax.reports.visible_text import shorten_line


def write_page(path: str, run: EvolveRun, counts: LineageCounts) -> None:
    """Write the lineage page.

    Args:
        path: path of the page.
        run: the evolve run; its entries are read again to build the trees.
        counts: counts of all entries of the run.
    """
    trees, summary = _pack_to_fit(run, counts), run.summary()
    names = _method_names(summary)
    pieces = render_page(
        "lineage.html",
        styles=["page.css", "lineage.css"],
        scripts=["diff.js", "lineage.js"],
        title=_title(summary),
        counts=counts,
        num_seeds=counts.rounds[0].kept if 0 in counts.rounds else 0,
        num_rounds=max(counts.rounds, default=0),
        tiles=_tiles(summary, counts),
        funnel=build_funnel(counts),
        method_chart=build_method_chart(counts, names),
        length_charts=[
            build_length_chart(counts, f"{field}_lengths", label)
            for field, label in (("instruction", "instructions"), ("output", "responses"))
        ],
        method_options=_method_options(counts, names),
        metadata=json.dumps({"rules": [excerpt(rule, 200) for rule in counts.rules], "methods": names}),
        num_trees=trees.num_trees,
        data_type="text/plain" if trees.is_packed else "application/json",
        index=Markup(trees.index),
        parts=(Markup(part) for part in trees.parts),
    )
    with atomic_write(path) as file:
        for piece in pieces:
            file.write(piece.encode("utf-8", "replace"))


def _pack_to_fit(run: EvolveRun, counts: LineageCounts) -> TreeData:
    """Pack as many trees as fit on a page."""
    number = max_trees(counts)
    trees = pack_trees(counts, run.entries(), number)
    while trees.num_bytes > MAX_PACKED_BYTES and number > 1:  # the texts compress less well than assumed
        number = max(1, int(0.95 * number * MAX_PACKED_BYTES / trees.num_bytes))
        trees = pack_trees(counts, run.entries(), number)
    return trees


def _title(summary: Mapping[str, Any]) -> str:
    seeds = summary.get("seeds")
    name = seeds.get("file") if isinstance(seeds, dict) else None
    return "Lineage" + (f" of {shorten_line(os.path.basename(name), 60)}" if isinstance(name, str) and name else "")


def _method_names(summary: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the evolving methods by number, as far as the summary contains them."""
    names = summary.get("method_names")
    known = names.items() if isinstance(names, dict) else ()
    return {int(number): excerpt(name, 40) for number, name in known if number.isdigit() and isinstance(name, str)}


def _tiles(summary: Mapping[str, Any], counts: LineageCounts) -> list[tuple[str, str]]:
    """Return the key figures at the top of the page as (name, value)."""
    cost = summary.get("cost_usd")
    return [
        ("records", f"{counts.num_kept:,}"),
        ("rejected", f"{counts.num_rejected:,}"),
        ("prompt tokens", f"{counts.prompt_tokens:,}"),
        ("completion tokens", f"{counts.completion_tokens:,}"),
        *([("cost", f"${cost:,.2f}")] if isinstance(cost, (int, float)) and cost else []),
        ("teacher", ", ".join(sorted(counts.teachers)) or "none"),
    ]


def _method_options(counts: LineageCounts, names: Mapping[int, str]) -> list[tuple[int, str]]:
    used = {number for round_ in counts.rounds.values() for number in (*round_.kept_by_method, *round_.rejected_by_method)}
    return [(number, names.get(number, f"method {number}")) for number in sorted(used)]
