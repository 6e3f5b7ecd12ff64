"""Settings of report."""

import dataclasses

from wizardcoder_jax.config.shared import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """results.json files, with the samples behind them -> one self-contained page; several are compared with the first."""

    results: tuple[str, ...]  # results.json files, one a model or run
    samples: tuple[str, ...] = ()  # samples file of each, in the same order; by default those that the results name
    benchmark_file: str | None = None  # problems to show instead of the benchmark's own file
    output: str = "report.html"  # the page
    force: bool = False  # compare results of different protocols or versions all the same

    def __post_init__(self) -> None:
        require(len(self.results) > 0, "give --results FILE...")
        require(
            len(self.samples) in (0, len(self.results)),
            f"{len(self.samples)} samples files for {len(self.results)} results files; give one for each, or none",
        )
