"""Lineage page of an evolve run: searchable trees of records, the filter funnel, lengths and methods."""

import os

from wizardcoder_jax.reports.lineage.evolve_run import EvolveRun
from wizardcoder_jax.reports.lineage.lineage_counts import count_entries
from wizardcoder_jax.reports.lineage.lineage_page import write_page

PAGE_NAME = "lineage.html"


def write_lineage_page(folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> str:
    """Write the lineage page of an evolve run. It is made from evolved.jsonl, rejected.jsonl and summary.json only.

    Args:
        folder: output folder of `evolve`.
        output: path of the page; by default lineage.html in `folder`.

    Returns:
        The path of the page.

    Raises:
        InputError: the folder has no evolved.jsonl, or a line is not a record (the message names file and line).
    """
    run = EvolveRun(os.fspath(folder))
    page = os.path.join(run.folder, PAGE_NAME) if output is None else os.fspath(output)
    write_page(page, run, count_entries(run.entries()))
    return page
