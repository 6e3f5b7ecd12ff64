"""The `decontaminate` command: removes records that contain a benchmark problem from an instruction dataset.

The remaining records go to --output, and the evidence against the removed ones to a report. Records are streamed. A first pass
counts the records and fails on malformed ones before any work is done. The output files appear only after all records are
processed. Rerunning the same command does nothing; --overwrite replaces outputs that were made from other data or settings.
"""

import contextlib
import gzip
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from wizardcoder_jax.config import DecontaminateConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.errors import InputError

if TYPE_CHECKING:
    from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
    from wizardcoder_jax.evol_instruct.contamination.contamination_report import ContaminationReport

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Check all records, then split them into clean and contaminated ones."""
    config = parse_command_line(DecontaminateConfig, argv)

    from wizardcoder_jax.core.file_hash import file_sha256
    from wizardcoder_jax.core.filesystem import expand_paths, write_json
    from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
    from wizardcoder_jax.evol_instruct.contamination.contamination_report import ContaminationReport

    files = expand_paths(config.data)
    _check_outputs(config, files)
    detector = ContaminationDetector(config.benchmarks_dir)
    _log_problems(detector)
    inputs = {
        "settings": {name: value for name, value in to_json(config).items() if name != "overwrite"},
        "data": {file: file_sha256(file) for file in files},
        "benchmarks": detector.num_problems_by_file,
        "benchmarks_sha256": detector.sha256,
        "passed_over": list(detector.skipped_files),
    }
    if _is_done(config, json.loads(json.dumps(inputs))):
        logger.info(f"{config.output} is already up to date (see {config.report_path}); use --overwrite to recreate it")
        return
    report = ContaminationReport()
    with _open_output(config.output) as clean, _open_output(config.rejected) as rejected:
        _split_records(config, files, detector, report, clean, rejected)
        write_json(config.report_path, {**report.to_json(), **inputs, "output_sha256": clean.sha256})
    share = report.num_contaminated / max(report.num_records, 1)
    counts = f"{report.num_records} records, {report.num_contaminated} contaminated ({share:.2%})"
    logger.info(f"{counts} -> {config.output}, {config.report_path}")


class _RecordWriter:
    """Writer of a JSONL file that hashes the content while writing it. Without a file, it discards the records."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def add(self, record: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            line = json.dumps(record, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:  # A lone surrogate cannot be encoded as UTF-8, but JSON can escape it.
            line = json.dumps(record, default=str).encode()
        self._digest.update(line + b"\n")
        self._file.write(line + b"\n")

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@contextlib.contextmanager
def _open_output(path: str | None) -> Iterator[_RecordWriter]:
    from wizardcoder_jax.core.filesystem import atomic_write

    if path is None:
        yield _RecordWriter(None)
        return
    with atomic_write(path) as file:
        if path.endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as compressed:
                yield _RecordWriter(compressed)  # type: ignore[arg-type]
        else:
            yield _RecordWriter(file)


def _split_records(
    config: DecontaminateConfig,
    files: Sequence[str],
    detector: "ContaminationDetector",
    report: "ContaminationReport",
    clean: _RecordWriter,
    rejected: _RecordWriter,
) -> None:
    from wizardcoder_jax.core.progress import Progress
    from wizardcoder_jax.core.record_files import read_records
    from wizardcoder_jax.evol_instruct.contamination.contamination_report import rejected_entry
    from wizardcoder_jax.evol_instruct.contamination.record_texts import extract_text

    num_records = 0
    for file in files:
        for location, entry in read_records(file):
            extract_text(location, entry, config.text_fields)
            num_records += 1
    if not num_records:
        raise InputError(f"no records in {', '.join(files)}")
    with Progress("decontaminate", num_records, "record") as progress:
        for file in files:
            for location, entry in read_records(file):
                matches = detector.find_matches(extract_text(location, entry, config.text_fields))
                report.add(location, matches)
                if matches:
                    rejected.add(rejected_entry(entry, matches))
                else:
                    clean.add(entry)
                progress.update(contaminated=report.num_contaminated)


def _check_outputs(config: DecontaminateConfig, files: Sequence[str]) -> None:
    for path in (config.output, config.rejected, config.report_path):
        if path is not None and any(os.path.realpath(path) == os.path.realpath(file) for file in files):
            raise InputError(f"{path} is an input file and would be replaced; choose another output path")
        if path is not None and os.path.isdir(path):
            raise InputError(f"{path} is a folder; give the name of a file")


def _log_problems(detector: "ContaminationDetector") -> None:
    counts = ", ".join(f"{file} ({count})" for file, count in detector.num_problems_by_file.items())
    logger.info(f"{detector.num_problems} benchmark problems: {counts}")
    if detector.skipped_files:
        logger.info(f"skipped files that contain no problems: {', '.join(detector.skipped_files)}")


def _is_done(config: DecontaminateConfig, inputs: dict[str, Any]) -> bool:
    """Return whether the output files already exist and were made from the same data, benchmarks and settings.

    Raises:
        InputError: the output file exists but was made from other data or settings, and `config.overwrite` is off.
    """
    from wizardcoder_jax.core.file_hash import file_sha256
    from wizardcoder_jax.core.filesystem import exists, read_json

    if config.overwrite or not exists(config.output):
        return False
    report = read_json(config.report_path) if exists(config.report_path) else {}
    is_same = all(report.get(name) == value for name, value in inputs.items())
    if (
        is_same
        and report.get("output_sha256") == file_sha256(config.output)
        and (not config.rejected or exists(config.rejected))
    ):
        return True
    raise InputError(
        f"{config.output} already exists, but was made from other data or settings; "
        "replace it with --overwrite, or choose another --output"
    )


if __name__ == "__main__":
    run_command(main)
