"""Progress of long work on stderr: a bar on a terminal, plain lines otherwise."""

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

LINE_INTERVAL_S = 10.0


class Progress:
    """Counts units of work; use as a context manager and call `update`.

    Args:
        label: what is being done, e.g. "train".
        total: units of work in all.
        unit: name of one unit, e.g. "step"; "B" for bytes, which are shown as GB.
        done: units that an earlier run finished.
        shown: whether anything is; one process of several shows what all do.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0, shown: bool = True) -> None:
        self._label, self._total, self._unit, self._done = label, total, unit, done
        self._first, self._start = done, time.monotonic()
        self._last_line = self._start
        self._bar, self._shown = None, shown
        if shown and sys.stderr.isatty():
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            width_of: dict[str, Any] = (
                {"dynamic_ncols": True} if width else {"ncols": 80, "nrows": 24}
            )  # some say they have none
            self._bar = tqdm(desc=label, total=total, unit=unit, unit_scale=unit == "B", initial=done, **width_of)

    def update(self, count: int = 1, **facts: Any) -> None:
        """Adds `count` finished units; `facts` (loss=..., passed=...) are shown beside the count."""
        self._done += count
        if self._bar is not None:
            if facts:
                self._bar.set_postfix(facts, refresh=False)
            self._bar.update(count)
        elif self._shown and (self._done >= self._total or time.monotonic() - self._last_line >= LINE_INTERVAL_S):
            self._print_line(facts)

    def say(self, message: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self._shown:
            tqdm.write(f"{self._label}: {message}", file=sys.stderr)

    def _print_line(self, facts: dict[str, Any]) -> None:
        self._last_line = time.monotonic()
        elapsed_s = max(self._last_line - self._start, 1e-9)
        rate = (self._done - self._first) / elapsed_s
        left_s = (self._total - self._done) / rate if rate else 0.0
        shown = "".join(f", {key}={value}" for key, value in facts.items())
        times = f"{elapsed_s:.0f} s, {left_s:.0f} s left"
        count = f"{self._done}/{self._total} {self._unit}s"
        if self._unit == "B":
            count = f"{self._done / 1e9:.2f}/{self._total / 1e9:.2f} GB"
        print(f"{self._label}: {count}, {times}{shown}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
