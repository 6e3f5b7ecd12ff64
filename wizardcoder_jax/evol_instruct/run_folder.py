"""The output folder of a run: held by one process, its files a function of the settings and the ledger."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wizardcoder_jax.core import filesystem
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evol_instruct import data_card
from wizardcoder_jax.evol_instruct.elimination_rules import MALICIOUS_REQUEST
from wizardcoder_jax.evol_instruct.record_evolver import Outcome
from wizardcoder_jax.evol_instruct.records import Record, Rejection
from wizardcoder_jax.evol_instruct.round_file import RoundFile, iter_newest_records, to_json_line
from wizardcoder_jax.evol_instruct.round_statistics import RoundStatistics
from wizardcoder_jax.evol_instruct.run_summary import describe_files
from wizardcoder_jax.llm_client.ledger import held, remove_ledger

LEDGER_NAME = "ledger.sqlite"
EXECUTIONS_NAME = "executions.sqlite"  # verdicts on programs, where a filter runs them
EVOLVED_NAME, REJECTED_NAME, MALICIOUS_NAME = "evolved.jsonl", "rejected.jsonl", "malicious.jsonl"
DERIVED_NAMES = (EVOLVED_NAME, REJECTED_NAME, MALICIOUS_NAME, "data_card.md", "summary.json", "lineage.html")
EXPORT_PATTERN = "evolved.*"  # evolved.parquet and its kind
SETTINGS_OF_THE_RUN = ("max_usd", "max_requests", "max_tokens", "overwrite")  # they bound the work, not its result
WITHHELD = f"[withheld: {MALICIOUS_NAME}]"


@contextlib.contextmanager
def claim_output_dir(output_dir: str, settings: dict[str, Any], *, overwrite: bool) -> Iterator[Path]:
    """Makes the output folder and holds it, so that no second process pays for the same calls; writes config.json.

    Derived files of other settings are removed (the ledger stays and rebuilds them for free); with `overwrite` all go.

    Raises:
        InputError: it is not local, cannot be written, or another process holds it.
    """
    if filesystem.is_remote(output_dir):
        raise InputError(f"output_dir {output_dir} must be local: the ledger is a sqlite file; copy the results after")
    filesystem.ensure_dir(output_dir)
    folder = Path(output_dir)
    descriptor = os.open(folder, os.O_RDONLY)
    with held(descriptor, f"another evolve is at work in {folder}; wait for it or choose another --output-dir"):
        _prepare(folder, settings, overwrite)
        yield folder


def _prepare(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    if overwrite:
        remove_ledger(folder / LEDGER_NAME)
        remove_ledger(folder / EXECUTIONS_NAME)
    earlier = _written_settings(folder)
    if overwrite or (earlier is not None and earlier != _of_the_result(settings)):
        names = (folder / name for name in DERIVED_NAMES)
        for path in (*(folder / "rounds").glob("round-*.jsonl"), *folder.glob(EXPORT_PATTERN), *names):
            path.unlink(missing_ok=True)
    for left_over in (*folder.glob(".*.tmp"), *(folder / "rounds").glob(".*.tmp")):  # of a run that was killed
        left_over.unlink(missing_ok=True)
    filesystem.write_json(folder / "config.json", settings)


def _written_settings(folder: Path) -> dict[str, Any] | None:
    try:
        return _of_the_result(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None  # none yet, or not ours


def _of_the_result(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in SETTINGS_OF_THE_RUN}


class RoundFileStore:
    """The files of a run while it makes them, a rounds.Store: outcomes go to the disk as they come.

    As a context manager: rejected.jsonl and malicious.jsonl appear where the block ends without an error.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = contextlib.ExitStack()
        self._rounds: dict[int, RoundFile] = {}
        self.statistics: list[RoundStatistics] = []

    def __enter__(self) -> Self:
        self._rejected = self._open.enter_context(filesystem.atomic_write(self._folder / REJECTED_NAME))
        self._malicious = self._open.enter_context(filesystem.atomic_write(self._folder / MALICIOUS_NAME))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def writing(self, round_: int) -> Iterator[Callable[[Outcome], None]]:
        """Takes the outcomes of a round; its file appears when the context ends without an error."""
        statistics, kept = RoundStatistics(round_), self._round(round_)
        with kept.writing():

            def write(outcome: Outcome) -> None:
                statistics.add(outcome)
                kept.add(outcome if isinstance(outcome, Record) else None)
                if isinstance(outcome, Rejection):
                    self._reject(outcome)

            yield write
        self.statistics.append(statistics)

    def _reject(self, rejection: Rejection) -> None:
        entry = rejection.to_json()
        if rejection.rule == MALICIOUS_REQUEST:
            self._malicious.write(to_json_line(entry))
            entry = {**entry, "instruction": WITHHELD, "output": WITHHELD}
        self._rejected.write(to_json_line(entry))

    def pool(self, round_: int) -> Iterator[Record | None]:
        """What a round evolves: the newest record of each seed, read from the files of the rounds before."""
        return iter_newest_records([self._round(number) for number in range(round_)])

    def pool_size(self) -> int:
        """Seeds that passed."""
        return self._round(0).num_kept

    def _round(self, round_: int) -> RoundFile:
        if round_ not in self._rounds:
            self._rounds[round_] = RoundFile(self._path(round_))
        return self._rounds[round_]

    def write_results(self, summary: dict[str, Any]) -> None:
        """Writes the union of all rounds, the summary and the data card."""
        with filesystem.atomic_write(self._folder / EVOLVED_NAME) as whole:
            for statistics in self.statistics:
                with self._path(statistics.round).open("rb") as part:
                    shutil.copyfileobj(part, whole)
        summary = {**summary, "files": describe_files(self._folder, (EVOLVED_NAME, REJECTED_NAME))}
        filesystem.write_text(self._folder / "data_card.md", data_card.render_data_card(summary))
        filesystem.write_json(self._folder / "summary.json", summary)

    def _path(self, round_: int) -> Path:
        return self._folder / "rounds" / f"round-{round_:02d}.jsonl"
