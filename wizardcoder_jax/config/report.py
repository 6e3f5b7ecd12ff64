"""Settings of report."""

import dataclasses

from wizardcoder_jax.config.field_checks import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write results and their samples as one self-contained HTML page; several results are compared with the first.

    With --lineage, write a page about a run of evolve instead.
    """

    results: tuple[str, ...] = ()  # results.json files, one per model or run
    samples: tuple[str, ...] = ()  # one samples file per results file, in the same order; default: those that the results name
    benchmark_file: str | None = None  # problems to show instead of the benchmark's own file
    lineage: str | None = None  # output folder of evolve; show its records as trees, instead of results
    output: str | None = None  # page to write; default: report.html, or lineage.html in the folder of --lineage
    force: bool = False  # compare results even if their protocols or benchmark versions differ
    overwrite: bool = False  # replace an existing file even if it is not an HTML page; pages are always replaced

    def __post_init__(self) -> None:
        has_results = len(self.results) > 0
        require(has_results or self.lineage is not None, "give --results FILE..., or --lineage DIR")
        require(
            self.lineage is None or not (has_results or self.samples or self.benchmark_file or self.force),
            "--lineage DIR writes a separate page; remove --results, --samples, --benchmark-file and --force",
        )
        require(
            len(self.samples) in (0, len(self.results)),
            f"{len(self.samples)} samples files for {len(self.results)} results files; give one for each results file, or none",
        )
