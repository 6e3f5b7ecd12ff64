"""Settings of report."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """results.json files (and the samples behind them) -> report.html."""

    output: str = "report.html"
