"""The output folder of a run: held by one process, its files a function of the settings and the ledger."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wizardcoder_jax import files
from wizardcoder_jax.clients.ledger import held, remove_ledger
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.instructions import card
from wizardcoder_jax.instructions.rounds import RoundResult
from wizardcoder_jax.instructions.summary import describe_files

LEDGER_NAME = "ledger.sqlite"
DERIVED_NAMES = ("evolved.jsonl", "rejected.jsonl", "data_card.md", "summary.json")
SETTINGS_OF_THE_RUN = ("max_usd", "max_requests", "overwrite")  # they bound the work, and say nothing about its result


@contextlib.contextmanager
def claimed(output_dir: str, settings: dict[str, Any], *, overwrite: bool) -> Iterator[Path]:
    """Makes the output folder and holds it, so that no second process pays for the same calls; writes config.json.

    Derived files of other settings are removed (the ledger stays and rebuilds them for free); with `overwrite` all go.

    Raises:
        InputError: it is not local, cannot be written, or another process holds it.
    """
    if files.is_remote(output_dir):
        raise InputError(f"output_dir {output_dir} must be local: the ledger is a sqlite file; copy the results after")
    files.ensure_dir(output_dir)
    folder = Path(output_dir)
    descriptor = os.open(folder, os.O_RDONLY)
    with held(descriptor, f"another evolve is at work in {folder}; wait for it or choose another --output-dir"):
        _prepare(folder, settings, overwrite)
        yield folder


def _prepare(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    if overwrite:
        remove_ledger(folder / LEDGER_NAME)
    earlier = _written_settings(folder)
    if overwrite or (earlier is not None and earlier != _of_the_result(settings)):
        for path in (*(folder / "rounds").glob("round-*.jsonl"), *(folder / name for name in DERIVED_NAMES)):
            path.unlink(missing_ok=True)
    files.write_json(folder / "config.json", settings)


def _written_settings(folder: Path) -> dict[str, Any] | None:
    try:
        return _of_the_result(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None  # none yet, or not ours


def _of_the_result(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in SETTINGS_OF_THE_RUN}


def write_round(folder: Path, result: RoundResult) -> None:
    """Writes the records that a round added; round 0 holds the seeds."""
    files.write_jsonl(folder / "rounds" / f"round-{result.round:02d}.jsonl", (record.to_json() for record in result.kept))


def write_results(folder: Path, results: Sequence[RoundResult], summary: dict[str, Any]) -> None:
    """Writes the union of all rounds, what was rejected, the summary and the data card."""
    files.write_jsonl(folder / "evolved.jsonl", (record.to_json() for result in results for record in result.kept))
    files.write_jsonl(folder / "rejected.jsonl", (entry.to_json() for result in results for entry in result.rejected))
    summary = {**summary, "files": describe_files(folder, ("evolved.jsonl", "rejected.jsonl"))}
    files.write_text(folder / "data_card.md", card.data_card(summary))
    files.write_json(folder / "summary.json", summary)
