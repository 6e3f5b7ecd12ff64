"""Time of a repeated call."""

import statistics
import time
from collections.abc import Callable

MIN_REPEATS, MAX_REPEATS, MAX_S = 3, 20, 10.0


def median_s(call: Callable[[], object]) -> float:
    """Return the median seconds of `call`, which must wait for its result. The first two calls (compilation) do not count."""
    call()
    call()
    times: list[float] = []
    while len(times) < MIN_REPEATS or (len(times) < MAX_REPEATS and sum(times) < MAX_S):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
