"""Finished work of an unfinished file: each record is appended durably, and a later run of the same work goes on from it."""

import json
import os
from types import TracebackType
from typing import IO, Any, Self

from wizardcoder_jax.core.filesystem import ensure_dir, is_remote, write_jsonl


class ResumeLog:
    """Records of work whose result `output` is written only when all is done.

    As a context manager it ends the work: done where the block ends without an error.

    Args:
        output: the file to be; the journal is `.NAME.journal` beside it. An object store has no files to append to:
            there, work that stops early starts anew.
        fingerprint: what the work depends on; a journal of other work is dropped.
        resume: whether to go on from a journal that is there.

    Raises:
        InputError: the place cannot be written.
    """

    def __init__(self, output: str, fingerprint: str, *, resume: bool) -> None:
        self.records: list[dict[str, Any]] = []
        self._file: IO[str] | None = None
        if is_remote(output):
            return
        folder, name = os.path.split(os.path.abspath(output))
        self._path = os.path.join(folder, f".{name}.journal")
        ensure_dir(folder)
        self.records = self._read(fingerprint) if resume else []
        write_jsonl(self._path, [{"fingerprint": fingerprint}, *self.records])  # whole or as it was: never cut
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (closed at exit)

    def _read(self, fingerprint: str) -> list[dict[str, Any]]:
        entries = []
        if os.path.exists(self._path):
            with open(self._path, encoding="utf-8") as file:
                for line in file:
                    try:
                        entries.append(json.loads(line))
                    except ValueError:  # the line in which an earlier run was cut off
                        break
        return entries[1:] if entries and entries[0] == {"fingerprint": fingerprint} else []

    def append(self, record: dict[str, Any]) -> None:
        """Adds one finished record."""
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        self.records.append(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            if kind is None or not self.records:  # done, or nothing to go on from
                os.remove(self._path)
