"""The output folder of a run. One process at a time can lock it. Its files depend only on the settings and the ledger."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wizardcoder_jax.core import filesystem
from wizardcoder_jax.core.errors import InputError, StoppedEarlyError
from wizardcoder_jax.evol_instruct import data_card
from wizardcoder_jax.evol_instruct.elimination_rules import MALICIOUS_REQUEST
from wizardcoder_jax.evol_instruct.record_evolver import Outcome
from wizardcoder_jax.evol_instruct.records import Record, Rejection
from wizardcoder_jax.evol_instruct.round_file import RoundFile, iter_newest_records, to_json_line
from wizardcoder_jax.evol_instruct.round_statistics import RoundStatistics
from wizardcoder_jax.evol_instruct.run_summary import describe_files
from wizardcoder_jax.llm_client.ledger import exclusive_lock, remove_ledger

LEDGER_NAME = "ledger.sqlite"
EXECUTIONS_NAME = "executions.sqlite"  # results of the programs that the execution filter has run
EVOLVED_NAME, REJECTED_NAME, MALICIOUS_NAME = "evolved.jsonl", "rejected.jsonl", "malicious.jsonl"
DERIVED_NAMES = (EVOLVED_NAME, REJECTED_NAME, MALICIOUS_NAME, "data_card.md", "summary.json", "lineage.html")
EXPORT_PATTERN = "evolved.*"  # evolved.parquet and the other exports
LIMIT_SETTINGS = ("max_usd", "max_requests", "max_tokens", "overwrite")  # settings that do not change the records of a run
WITHHELD = f"[withheld: {MALICIOUS_NAME}]"
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def claim_output_dir(output_dir: str, settings: dict[str, Any], *, overwrite: bool) -> Iterator[Path]:
    """Create and lock the output folder, so that two processes never pay for the same calls, and write config.json.

    Output files that were made with other settings are removed. The ledger stays, so that answers are not paid for again. With
    `overwrite`, the ledger is removed too.

    Raises:
        InputError: the folder is not local or not writable, or another process has locked it.
    """
    if filesystem.is_remote(output_dir):
        raise InputError(
            f"output_dir {output_dir} must be local, because the ledger is an SQLite file; "
            "choose a local folder and copy the results after the run"
        )
    filesystem.ensure_dir(output_dir)
    folder = Path(output_dir)
    descriptor = os.open(folder, os.O_RDONLY)
    with exclusive_lock(descriptor, f"another evolve command is writing {folder}; wait or choose another --output-dir"):
        _prepare(folder, settings, overwrite)
        yield folder


def _prepare(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    if overwrite:
        remove_ledger(folder / LEDGER_NAME)
        remove_ledger(folder / EXECUTIONS_NAME)
    earlier = _read_result_settings(folder)
    if overwrite or (earlier is not None and earlier != _result_settings(settings)):
        names = (folder / name for name in DERIVED_NAMES)
        for path in (*(folder / "rounds").glob("round-*.jsonl"), *folder.glob(EXPORT_PATTERN), *names):
            path.unlink(missing_ok=True)
    for temporary in (*folder.glob(".*.tmp"), *(folder / "rounds").glob(".*.tmp")):  # left by a run that was killed
        temporary.unlink(missing_ok=True)
    filesystem.write_json(folder / "config.json", settings)


def _read_result_settings(folder: Path) -> dict[str, Any] | None:
    try:
        return _result_settings(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None  # config.json is missing or was not written by evolve


def _result_settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in LIMIT_SETTINGS}


@contextlib.contextmanager
def stop_on_full_disk() -> Iterator[None]:
    """Convert errors due to a full disk or an exceeded quota to StoppedEarlyError: the run can resume once there is space."""
    try:
        yield
    except (OSError, InputError) as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        if not (isinstance(cause, OSError) and cause.errno in DISK_FULL_ERRORS):
            raise
        failure = f"cannot write {cause.filename or 'the output'} ({cause.strerror})"
        raise StoppedEarlyError(f"{failure}; free disk space, then the same command resumes") from error


class RoundFileStore:
    """A rounds.RoundStore that writes each outcome to files in the output folder as soon as it is known.

    Use it as a context manager: rejected.jsonl and malicious.jsonl get their final names if the context ends without an error.

    Args:
        folder: the output folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._exit_stack = contextlib.ExitStack()
        self._rounds: dict[int, RoundFile] = {}
        self.statistics: list[RoundStatistics] = []

    def __enter__(self) -> Self:
        self._rejected = self._exit_stack.enter_context(filesystem.atomic_write(self._folder / REJECTED_NAME))
        self._malicious = self._exit_stack.enter_context(filesystem.atomic_write(self._folder / MALICIOUS_NAME))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exit_stack.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def write_round(self, round_: int) -> Iterator[Callable[[Outcome], None]]:
        """Yield a function that writes the next outcome of the round. The round file is complete when the context ends."""
        statistics, kept = RoundStatistics(round_), self._round(round_)
        with kept.open_for_writing():

            def write(outcome: Outcome) -> None:
                statistics.add(outcome)
                kept.add(outcome if isinstance(outcome, Record) else None)
                if isinstance(outcome, Rejection):
                    self._write_rejection(outcome)

            yield write
        self.statistics.append(statistics)

    def _write_rejection(self, rejection: Rejection) -> None:
        entry = rejection.to_json()
        if rejection.rule == MALICIOUS_REQUEST:
            self._malicious.write(to_json_line(entry))
            entry = {**entry, "instruction": WITHHELD, "output": WITHHELD}
        self._rejected.write(to_json_line(entry))

    def pool(self, round_: int) -> Iterator[Record | None]:
        """Yield the records that a round evolves, read from the files of earlier rounds; None while the next is not known."""
        return iter_newest_records([self._round(number) for number in range(round_)])

    def pool_size(self) -> int:
        """Return the number of seeds that passed."""
        return self._round(0).num_kept

    def _round(self, round_: int) -> RoundFile:
        if round_ not in self._rounds:
            self._rounds[round_] = RoundFile(self._path(round_))
        return self._rounds[round_]

    def write_results(self, summary: dict[str, Any]) -> None:
        """Write evolved.jsonl (the kept records of all rounds), data_card.md and summary.json."""
        with filesystem.atomic_write(self._folder / EVOLVED_NAME) as evolved:
            for statistics in self.statistics:
                with self._path(statistics.round).open("rb") as round_file:
                    shutil.copyfileobj(round_file, evolved)
        summary = {**summary, "files": describe_files(self._folder, (EVOLVED_NAME, REJECTED_NAME))}
        filesystem.write_text(self._folder / "data_card.md", data_card.render_data_card(summary))
        filesystem.write_json(self._folder / "summary.json", summary)

    def _path(self, round_: int) -> Path:
        return self._folder / "rounds" / f"round-{round_:02d}.jsonl"
