"""A log of finished records, from which a later run of the same work resumes."""

import json
import os
from types import TracebackType
from typing import IO, Any, Self

from wizardcoder_jax.core.filesystem import ensure_dir, is_remote
from wizardcoder_jax.core.record_files import write_jsonl


class ResumeLog:
    """The finished records of work that writes its output file only at the end.

    Use it as a context manager: if the block ends without an error, the work is done and the log is removed.

    Args:
        output: output file of the work; the log is `.NAME.journal` in the same folder. On an object store, whose files cannot
            be appended to, nothing is logged and work that stops early starts over.
        fingerprint: string that identifies everything the work depends on; a log with another fingerprint is discarded.
        resume: whether to use the records of an existing log.

    Raises:
        InputError: the log cannot be written.
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
        write_jsonl(self._path, [{"fingerprint": fingerprint}, *self.records])  # atomic: a crash never truncates the old log
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (closed at exit)

    def _read(self, fingerprint: str) -> list[dict[str, Any]]:
        entries = []
        if os.path.exists(self._path):
            with open(self._path, encoding="utf-8") as file:
                for line in file:
                    try:
                        entries.append(json.loads(line))
                    except ValueError:  # an earlier run was killed while it wrote this line
                        break
        return entries[1:] if entries and entries[0] == {"fingerprint": fingerprint} else []

    def append(self, record: dict[str, Any]) -> None:
        """Add one finished record."""
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        self.records.append(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            if kind is None or not self.records:  # the work is done, or there is nothing to resume from
                os.remove(self._path)
