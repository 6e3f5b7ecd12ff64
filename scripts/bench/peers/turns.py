"""Fair timing: peers take turns in one run, and ratios are of times that lie side by side."""

import statistics
import time
from collections.abc import Callable


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def taking_turns(calls: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, list[float]]:
    """Seconds of each call by name in so many rounds, after one warm-up of each."""
    for call in calls.values():
        call()
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(num_rounds)]
    return {name: [times[name] for times in rounds] for name in calls}


def compared(times: dict[str, list[float]]) -> dict[str, float]:
    """Median seconds of each, and of each but "ours" the median of the rounds' ratios: its time over ours."""
    told = {f"{name}_s": round(statistics.median(taken), 3) for name, taken in times.items()}
    for name in times.keys() - {"ours"}:
        ratios = [theirs / ours for ours, theirs in zip(times["ours"], times[name], strict=True)]
        told[f"times_{name}"] = round(statistics.median(ratios), 2)
    return told
