"""Settings of decontaminate."""

import dataclasses

from wizardcoder_jax.config.field_checks import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecontaminateConfig:
    """any instruction dataset -> those of its records that hold no benchmark problem, and a report on the others."""

    data: tuple[str, ...]  # files or globs: JSONL, JSON array or parquet, plain or gzipped
    benchmarks_dir: str  # folder of benchmarks, in any layout; files that hold no problems are passed over
    output: str = "clean.jsonl"  # the records without a problem, all their fields kept; gzipped where it ends in .gz
    rejected: str | None = None  # the other records, each with its evidence
    report: str | None = None  # counts and evidence; by default OUTPUT.report.json
    text_fields: tuple[str, ...] = ()  # fields to look into; by default those of instructions, chats, completions and texts
    overwrite: bool = False  # replace an output of other data, benchmarks or settings

    def __post_init__(self) -> None:
        require(len(self.data) > 0, "give --data FILE...")
        written = [path for path in (self.output, self.rejected, self.report_path) if path is not None]
        not_lines = [path for path in written if path.removesuffix(".gz").endswith(".parquet")]
        require(not not_lines, f"{', '.join(not_lines)}: records are written one JSON object a line; name the file .jsonl")
        require(len(set(written)) == len(written), f"output, rejected and report are one file: {', '.join(written)}")

    @property
    def report_path(self) -> str:
        """Where the report goes."""
        return self.report or f"{self.output}.report.json"
