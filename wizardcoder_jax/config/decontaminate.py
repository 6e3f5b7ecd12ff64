"""Settings of decontaminate."""

import dataclasses

from wizardcoder_jax.config.field_checks import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecontaminateConfig:
    """Remove the records of an instruction dataset that contain a benchmark problem, and report the evidence."""

    data: tuple[str, ...]  # files or globs: JSONL, JSON array or parquet, plain or gzipped
    benchmarks_dir: str  # folder of benchmarks in any layout; files without problems are skipped
    output: str = "clean.jsonl"  # file for the clean records with all their fields; gzipped if its name ends in .gz
    rejected: str | None = None  # file for the contaminated records, each with its evidence
    report: str | None = None  # file for counts and evidence; default: OUTPUT.report.json
    text_fields: tuple[str, ...] = ()  # fields to search; default: all usual fields of instructions, chats and texts
    overwrite: bool = False  # replace an output that was made with other data, benchmarks or settings

    def __post_init__(self) -> None:
        require(len(self.data) > 0, "give --data FILE...")
        written = [path for path in (self.output, self.rejected, self.report_path) if path is not None]
        not_lines = [path for path in written if path.removesuffix(".gz").endswith(".parquet")]
        require(not not_lines, f"{', '.join(not_lines)}: records are written as JSONL; use a name that ends in .jsonl")
        require(len(set(written)) == len(written), f"output, rejected and report must differ, got {', '.join(written)}")

    @property
    def report_path(self) -> str:
        """Path of the report."""
        return self.report or f"{self.output}.report.json"
