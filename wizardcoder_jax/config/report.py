"""Settings of report."""

import dataclasses

from wizardcoder_jax.config.field_checks import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """results.json files, with the samples behind them -> one self-contained page; several are compared with the first.

    Or, with --lineage, the output folder of evolve -> its page of trees.
    """

    results: tuple[str, ...] = ()  # results.json files, one a model or run
    samples: tuple[str, ...] = ()  # samples file of each, in the same order; by default those that the results name
    benchmark_file: str | None = None  # problems to show instead of the benchmark's own file
    lineage: str | None = None  # an output folder of evolve, whose records are shown as trees; instead of results
    output: str | None = None  # the page; by default report.html, or lineage.html in the folder
    force: bool = False  # compare results even if their protocols or benchmark versions differ
    overwrite: bool = False  # replace an existing file even if it is not an HTML page; pages are always replaced

    def __post_init__(self) -> None:
        has_results = len(self.results) > 0
        require(has_results or self.lineage is not None, "give --results FILE..., or --lineage DIR")
        require(
            self.lineage is None or not (has_results or self.samples or self.benchmark_file or self.force),
            "--lineage DIR makes a page of its own; leave out --results, --samples, --benchmark-file and --force",
        )
        require(
            len(self.samples) in (0, len(self.results)),
            f"{len(self.samples)} samples files for {len(self.results)} results files; give one for each, or none",
        )
