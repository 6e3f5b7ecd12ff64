"""Any instruction dataset -> clean.jsonl: drops the records that hold a benchmark problem, and says by what it found them.

Records are read and written one by one. A first pass counts them and refuses what is malformed before any work; the outputs
appear when all is done. The same command again finds them done; --overwrite replaces those of other data or settings.
"""

import contextlib
import gzip
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from wizardcoder_jax.config import DecontaminateConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.errors import InputError

if TYPE_CHECKING:
    from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector

BLOCK_BYTES = 1 << 20


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the data once to check it, and once to sort it."""
    config = parse_command_line(DecontaminateConfig, argv)

    from wizardcoder_jax.core.filesystem import expand, write_json
    from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
    from wizardcoder_jax.evol_instruct.contamination.record_texts import ContaminationReport

    files = expand(config.data)
    _check_outputs(config, files)
    contamination = ContaminationDetector(config.benchmarks_dir)
    _say_what_is_looked_for(contamination)
    made_of = {
        "settings": {name: value for name, value in to_json(config).items() if name != "overwrite"},
        "data": {file: _sha256(file) for file in files},
        "benchmarks": contamination.num_problems_of,
        "benchmarks_sha256": contamination.sha256,
        "passed_over": list(contamination.passed_over),
    }
    if _is_done(config, json.loads(json.dumps(made_of))):
        print(f"{config.output} is done already, see {config.report_path}; --overwrite makes it anew", file=sys.stderr)
        return
    tally = ContaminationReport()
    with _output(config.output) as clean, _output(config.rejected) as dropped:
        _sort(config, files, contamination, tally, clean, dropped)
        report = {**tally.report(), **made_of}
        write_json(config.report_path, {**report, "output_sha256": clean.sha256})
    share = tally.num_contaminated / max(tally.num_records, 1)
    counts = f"{tally.num_records} records, {tally.num_contaminated} contaminated ({share:.2%})"
    print(f"{counts} -> {config.output}, {config.report_path}", file=sys.stderr)


class _Lines:
    """A file of records, one a line, whose content is hashed as it is written."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def add(self, record: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            line = json.dumps(record, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:  # half a character, which JSON's escapes alone can hold
            line = json.dumps(record, default=str).encode()
        self._digest.update(line + b"\n")
        self._file.write(line + b"\n")

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[_Lines]:
    from wizardcoder_jax.core.filesystem import atomic_write

    if path is None:
        yield _Lines(None)
        return
    with atomic_write(path) as file:
        if path.endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as compressed:
                yield _Lines(compressed)  # type: ignore[arg-type]
        else:
            yield _Lines(file)


def _sort(
    config: DecontaminateConfig,
    files: Sequence[str],
    contamination: "ContaminationDetector",
    tally: Any,
    clean: _Lines,
    dropped: _Lines,
) -> None:
    from wizardcoder_jax.core.filesystem import read_records
    from wizardcoder_jax.core.progress import Progress
    from wizardcoder_jax.evol_instruct.contamination.record_texts import extract_text, rejected_entry

    num_records = 0
    for file in files:
        for place, entry in read_records(file):
            extract_text(place, entry, config.text_fields)
            num_records += 1
    if not num_records:
        raise InputError(f"{', '.join(files)}: no records")
    with Progress("decontaminate", num_records, "record") as progress:
        for file in files:
            for place, entry in read_records(file):
                hits = contamination.hits(extract_text(place, entry, config.text_fields))
                tally.add(place, hits)
                if hits:
                    dropped.add(rejected_entry(entry, hits))
                else:
                    clean.add(entry)
                progress.update(contaminated=tally.num_contaminated)


def _check_outputs(config: DecontaminateConfig, files: Sequence[str]) -> None:
    for path in (config.output, config.rejected, config.report_path):
        if path is not None and any(os.path.realpath(path) == os.path.realpath(file) for file in files):
            raise InputError(f"{path} is data that is read, and would be replaced; choose another output path")
        if path is not None and os.path.isdir(path):
            raise InputError(f"{path} is a folder; give the name of a file")


def _say_what_is_looked_for(contamination: "ContaminationDetector") -> None:
    counts = ", ".join(f"{file} ({count})" for file, count in contamination.num_problems_of.items())
    print(f"{contamination.num_problems} problems: {counts}", file=sys.stderr)
    if contamination.passed_over:
        print(f"passed over, no problems in them: {', '.join(contamination.passed_over)}", file=sys.stderr)


def _is_done(config: DecontaminateConfig, made_of: dict[str, Any]) -> bool:
    """Whether the outputs are there, and of the same data, benchmarks and settings.

    Raises:
        InputError: there is an output of others, and it is not to be replaced.
    """
    from wizardcoder_jax.core.filesystem import exists, read_json

    if config.overwrite or not exists(config.output):
        return False
    report = read_json(config.report_path) if exists(config.report_path) else {}
    is_same = all(report.get(name) == value for name, value in made_of.items())
    if is_same and report.get("output_sha256") == _sha256(config.output) and (not config.rejected or exists(config.rejected)):
        return True
    raise InputError(
        f"{config.output} is there, of other data or settings; --overwrite replaces it, or choose another --output"
    )


def _sha256(path: str) -> str:
    """Of a file's content, decompressed where its name ends in .gz."""
    from wizardcoder_jax.core.filesystem import open_bytes

    digest = hashlib.sha256()
    with open_bytes(path) as file:
        try:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
        except (OSError, EOFError) as error:
            raise InputError(f"{path}: cannot be read whole: {error}") from error
    return digest.hexdigest()


if __name__ == "__main__":
    run_command(main)
