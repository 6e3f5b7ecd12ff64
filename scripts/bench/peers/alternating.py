"""Fair timing of several candidates: they alternate in one run, and ratios compare times from the same round."""

import statistics
import time
from collections.abc import Callable


def seconds(call: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def time_alternating(calls: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each call in each round, by name, after one warm-up call of each."""
    for call in calls.values():
        call()
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(num_rounds)]
    return {name: [times[name] for times in rounds] for name in calls}


def compare(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the median seconds by name and, for every name except "ours", the median ratio of its time to ours."""
    result = {f"{name}_s": round(statistics.median(taken), 3) for name, taken in times.items()}
    for name in times.keys() - {"ours"}:
        ratios = [theirs / ours for ours, theirs in zip(times["ours"], times[name], strict=True)]
        result[f"times_{name}"] = round(statistics.median(ratios), 2)
    return result
