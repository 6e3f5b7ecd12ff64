"""The lineage of an evolve run as one page: trees that can be searched, the funnel, lengths and methods."""

import os

from wizardcoder_jax.reports.lineage.evolve_run import EvolveRun
from wizardcoder_jax.reports.lineage.lineage_counts import count
from wizardcoder_jax.reports.lineage.lineage_page import write_page

PAGE_NAME = "lineage.html"


def write_lineage(folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> str:
    """Writes the page of the run in `folder`; a function of its evolved.jsonl, rejected.jsonl and summary.json alone.

    Args:
        folder: the output folder of evolve.
        output: the page; lineage.html in the folder by default.

    Returns:
        Where the page is.

    Raises:
        InputError: the folder holds no evolved.jsonl, or a line of it is no record (file and line named).
    """
    run = EvolveRun(os.fspath(folder))
    page = os.path.join(run.folder, PAGE_NAME) if output is None else os.fspath(output)
    write_page(page, run, count(run.entries()))
    return page
