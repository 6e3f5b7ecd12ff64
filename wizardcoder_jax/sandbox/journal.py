"""Verdicts already found, kept beside an unfinished result so that the same command goes on where it stopped."""

import contextlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from wizardcoder_jax.errors import InputError
from wizardcoder_jax.files import ensure_dir
from wizardcoder_jax.sandbox.program import Verdict


class Journal:
    """An append-only file of verdicts by program key; use as a context manager.

    Args:
        path: the file; its folder is made where missing.
        overwrite: forget what an earlier run found.

    Raises:
        InputError: the place cannot be written.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self._path = Path(path)
        ensure_dir(self._path.parent)
        self._verdicts = {} if overwrite else _read(self._path)
        try:
            self._file = self._path.open("w" if overwrite else "a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}; choose another output path") from error
        if self._file.tell():
            self._file.write("\n")  # a line that was cut short stays a line of its own

    def get(self, key: str) -> Verdict | None:
        """The verdict on the program with this key, where one was found."""
        return self._verdicts.get(key)

    def add(self, key: str, verdict: Verdict) -> None:
        """Keeps a verdict; it is on its way to the disk when this returns."""
        self._verdicts[key] = verdict
        line = {"key": key, "reason": verdict.reason, "detail": verdict.detail, "seconds": verdict.seconds}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def remove(self) -> None:
        """Deletes the file, once the verdicts stand in a result."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def _read(path: Path) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    if not path.exists():
        return verdicts
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            verdict = Verdict(reason=entry["reason"], detail=entry["detail"], seconds=entry["seconds"])
            verdicts[entry["key"]] = verdict
        except (ValueError, KeyError, TypeError):  # the line that was being written when the run was killed
            continue
    return verdicts
