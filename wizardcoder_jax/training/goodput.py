"""Goodput: where a run's wall time went, over all the times that it was started, and which share of it trained the model.

Productive is the time of steps that are part of the model as it is in the end. Steps after the last checkpoint before a kill
are done again; their first time counts as lost.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, read_json, write_json

FILE = "goodput.json"
SAVE_INTERVAL_S = 10.0  # what a killed run does not account for, at most
OTHER = "other"  # time in no phase


def process_start_s() -> float:
    """When this process started, on the clock of time.time: what went before its first line (loading Python) counts too.

    Source: proc(5), field 22 of /proc/PID/stat, in clock ticks since boot; elsewhere than on Linux, now.
    """
    try:
        with open("/proc/self/stat", encoding="ascii") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError):
        return time.time()


class Stopwatch:
    """Accounts wall time by phase, from the start of the process; time belongs to the innermost phase.

    Args:
        first: the phase of what went before.
    """

    def __init__(self, first: str = "start") -> None:
        self.started_s = process_start_s()
        already_s = max(0.0, time.time() - self.started_s)
        self._last = time.monotonic()
        self._begin = self._last - already_s
        self._seconds = {first: already_s}
        self._open: list[str] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside counts as `name`, except for phases within it."""
        self._account()
        self._open.append(name)
        try:
            yield
        finally:
            self._account()
            self._open.pop()

    def _account(self) -> None:
        now = time.monotonic()
        name = self._open[-1] if self._open else OTHER
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """Seconds by phase until now; OTHER is time in no phase."""
        self._account()
        return dict(self._seconds)

    @property
    def wall_s(self) -> float:
        """Seconds since the process started."""
        return time.monotonic() - self._begin


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goodput:
    """All runs together."""

    wall_s: float
    productive_s: float  # of steps that count
    lost_s: float  # of steps that were done again
    accounted: float  # share of the wall time that is in a named phase

    @property
    def share(self) -> float:
        """Productive time as a share of all."""
        return self.productive_s / self.wall_s if self.wall_s else 0.0

    def __str__(self) -> str:
        return (
            f"goodput: {100 * self.share:.1f} % of {self.wall_s:.0f} s trained the model, {self.lost_s:.0f} s of steps were "
            f"lost; {100 * self.accounted:.1f} % of the time is accounted for"
        )


class GoodputLog:
    """RUN/goodput.json: one entry for each time that the run was started. Only one process of a run has one.

    Args:
        run_dir: the run's folder, local or gs://.
        watch: of this process.
        step: the step that the run goes on from.
        anew: forget earlier starts.

    Raises:
        InputError: the file is there and is no such file.
    """

    def __init__(self, run_dir: str, watch: Stopwatch, step: int, anew: bool = False) -> None:
        self._path, self._watch = os.path.join(run_dir, FILE), watch
        earlier = [] if anew or not exists(self._path) else read_json(self._path).get("runs")
        if not isinstance(earlier, list):
            raise InputError(f"{self._path} holds no list of runs; remove it")
        self._earlier: list[dict[str, Any]] = [_without_lost(run, step) for run in earlier]
        self._first = step
        self._steps: list[float] = []  # seconds of each step from `first` on
        self._saved = time.monotonic()

    def stepped(self, step_s: float) -> None:
        """Notes a step of this run, and saves what is known every SAVE_INTERVAL_S."""
        self._steps.append(step_s)
        if time.monotonic() - self._saved >= SAVE_INTERVAL_S:
            self.save()

    def save(self) -> Goodput:
        """Writes the file; the last thing that a run does."""
        self._saved = time.monotonic()
        runs = [*self._earlier, self._entry()]
        goodput = summarize_runs(runs)
        write_json(self._path, {"goodput": goodput.share, **dataclasses.asdict(goodput), "runs": runs})
        return goodput

    def _entry(self) -> dict[str, Any]:
        seconds = self._watch.seconds()
        return {
            "started_s": self._watch.started_s,
            "first_step": self._first,
            "steps_s": [round(step_s, 6) for step_s in self._steps],
            "lost_s": 0.0,
            "wall_s": self._watch.wall_s,
            "phases_s": seconds,
        }


def _without_lost(run: dict[str, Any], step: int) -> dict[str, Any]:
    """An earlier run, its steps after `step` lost: this run does them again."""
    kept = max(0, step - run["first_step"])
    lost_s = run["lost_s"] + sum(run["steps_s"][kept:])
    return {**run, "steps_s": run["steps_s"][:kept], "lost_s": lost_s}


def summarize_runs(runs: list[dict[str, Any]]) -> Goodput:
    """The goodput of a run's starts together."""
    wall_s = sum(run["wall_s"] for run in runs)
    named_s = sum(seconds for run in runs for phase, seconds in run["phases_s"].items() if phase != OTHER)
    return Goodput(
        wall_s=wall_s,
        productive_s=sum(sum(run["steps_s"]) for run in runs),
        lost_s=sum(run["lost_s"] for run in runs),
        accounted=named_s / wall_s if wall_s else 1.0,
    )
