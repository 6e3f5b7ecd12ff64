"""Goodput: the share of a run's wall time, including restarts, that was spent on training steps of the final model.

If a run is killed, the steps since its last checkpoint must be repeated after the restart; the time of their first execution
counts as lost.
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
SAVE_INTERVAL_S = 10.0  # seconds between writes of the file; a killed run loses measurements since the last write
OTHER = "other"  # name of the time outside all phases


def process_start_s() -> float:
    """Return the start time of this process in seconds since the epoch, so that loading Python is counted too.

    Source: proc(5), field 22 of /proc/PID/stat, in clock ticks since boot. On systems without /proc, return the current time.
    """
    try:
        with open("/proc/self/stat", encoding="ascii") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError):
        return time.time()


class Stopwatch:
    """Measures the wall time of each phase since the start of the process; with nested phases, only the innermost is counted.

    Args:
        first: name of the phase between the start of the process and the creation of the stopwatch.
    """

    def __init__(self, first: str = "start") -> None:
        self.started_s = process_start_s()
        elapsed_s = max(0.0, time.time() - self.started_s)
        self._last = time.monotonic()
        self._begin = self._last - elapsed_s
        self._seconds = {first: elapsed_s}
        self._open: list[str] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside the `with` block as phase `name`, except the time of nested phases."""
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
        """Return the seconds spent in each phase so far; OTHER is the time outside all phases."""
        self._account()
        return dict(self._seconds)

    @property
    def wall_s(self) -> float:
        """Seconds since the process started."""
        return time.monotonic() - self._begin


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goodput:
    """The goodput of a run, summed over all its starts."""

    wall_s: float
    productive_s: float  # seconds spent on steps that the final model contains
    lost_s: float  # seconds spent on steps that had to be repeated later
    accounted: float  # share of the wall time that was spent in named phases

    @property
    def share(self) -> float:
        """Productive time as a fraction of wall time."""
        return self.productive_s / self.wall_s if self.wall_s else 0.0

    def __str__(self) -> str:
        return (
            f"goodput: {100 * self.share:.1f} % of {self.wall_s:.0f} s trained the model, {self.lost_s:.0f} s of steps were "
            f"lost; {100 * self.accounted:.1f} % of the time is accounted for"
        )


class GoodputLog:
    """Writes RUN/goodput.json, with one entry for each start of the run. Only the run's first process may use it.

    Args:
        run_dir: the run's folder, local or gs://.
        clock: the stopwatch of this process.
        step: the step that the run resumes from.
        overwrite: whether to discard the entries of earlier starts.

    Raises:
        InputError: the file exists but is malformed.
    """

    def __init__(self, run_dir: str, clock: Stopwatch, step: int, overwrite: bool = False) -> None:
        self._path, self._clock = os.path.join(run_dir, FILE), clock
        earlier = [] if overwrite or not exists(self._path) else read_json(self._path).get("runs")
        if not isinstance(earlier, list):
            raise InputError(f"{self._path} is malformed (it has no list 'runs'); delete the file")
        self._earlier: list[dict[str, Any]] = [_without_lost(run, step) for run in earlier]
        self._first = step
        self._steps: list[float] = []  # duration in seconds of each step after `_first`
        self._saved = time.monotonic()

    def record_step(self, step_s: float) -> None:
        """Record the duration of a step; write the file every SAVE_INTERVAL_S seconds."""
        self._steps.append(step_s)
        if time.monotonic() - self._saved >= SAVE_INTERVAL_S:
            self.save()

    def save(self) -> Goodput:
        """Write the file and return the goodput so far."""
        self._saved = time.monotonic()
        runs = [*self._earlier, self._entry()]
        goodput = summarize_runs(runs)
        write_json(self._path, {"goodput": goodput.share, **dataclasses.asdict(goodput), "runs": runs})
        return goodput

    def _entry(self) -> dict[str, Any]:
        seconds = self._clock.seconds()
        return {
            "started_s": self._clock.started_s,
            "first_step": self._first,
            "steps_s": [round(step_s, 6) for step_s in self._steps],
            "lost_s": 0.0,
            "wall_s": self._clock.wall_s,
            "phases_s": seconds,
        }


def _without_lost(run: dict[str, Any], step: int) -> dict[str, Any]:
    """Return the entry of an earlier start with its steps after `step` counted as lost, because this start repeats them."""
    kept = max(0, step - run["first_step"])
    lost_s = run["lost_s"] + sum(run["steps_s"][kept:])
    return {**run, "steps_s": run["steps_s"][:kept], "lost_s": lost_s}


def summarize_runs(runs: list[dict[str, Any]]) -> Goodput:
    """Return the goodput of a run, summed over the entries of all its starts."""
    wall_s = sum(run["wall_s"] for run in runs)
    named_s = sum(seconds for run in runs for phase, seconds in run["phases_s"].items() if phase != OTHER)
    return Goodput(
        wall_s=wall_s,
        productive_s=sum(sum(run["steps_s"]) for run in runs),
        lost_s=sum(run["lost_s"] for run in runs),
        accounted=named_s / wall_s if wall_s else 1.0,
    )
