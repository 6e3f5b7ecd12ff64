"""Progress of long work on standard error: a bar on a terminal, plain lines otherwise."""

import logging
import os
import sys
import time
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from wizardcoder_jax.core.logging_setup import is_quiet

logger = logging.getLogger(__name__)

LINE_INTERVAL_S = 10.0


class Progress:
    """A counter of finished units of work. Use it as a context manager and call `update`. With --quiet nothing is shown.

    Args:
        label: name of the work, e.g. "train".
        total: total number of units.
        unit: name of one unit, e.g. "step"; "B" stands for bytes, which are shown as GB.
        done: number of units that an earlier run finished.
        shown: whether to show progress; with several processes, only one should.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0, shown: bool = True) -> None:
        self._label, self._total, self._unit, self._done = label, total, unit, done
        self._first_done, self._start_s = done, time.monotonic()
        self._last_line_s = self._start_s
        self._bar: tqdm | None = None
        self._is_shown = shown and not is_quiet()
        if self._is_shown and sys.stderr.isatty():
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            size: dict[str, Any] = {"dynamic_ncols": True} if width else {"ncols": 80, "nrows": 24}  # some terminals report 0
            self._bar = tqdm(desc=label, total=total, unit=unit, unit_scale=unit == "B", initial=done, **size)

    def update(self, count: int = 1, **facts: Any) -> None:
        """Add `count` finished units, and show `facts` (loss=..., passed=...) next to the count."""
        self._done += count
        if self._bar is not None:
            if facts:
                self._bar.set_postfix(facts, refresh=False)
            self._bar.update(count)
        elif self._is_shown and (self._done >= self._total or time.monotonic() - self._last_line_s >= LINE_INTERVAL_S):
            self._write_line(facts)

    def log(self, message: str) -> None:
        """Write one line, above the bar if there is one."""
        if self._is_shown:
            logger.info("%s: %s", self._label, message)

    def _write_line(self, facts: dict[str, Any]) -> None:
        self._last_line_s = time.monotonic()
        elapsed_s = max(self._last_line_s - self._start_s, 1e-9)
        rate = (self._done - self._first_done) / elapsed_s
        left_s = (self._total - self._done) / rate if rate else 0.0
        shown = "".join(f", {key}={value}" for key, value in facts.items())
        count = f"{self._done}/{self._total} {self._unit}s"
        if self._unit == "B":
            count = f"{self._done / 1e9:.2f}/{self._total / 1e9:.2f} GB"
        logger.info("%s: %s, %.0f s, %.0f s left%s", self._label, count, elapsed_s, left_s, shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
