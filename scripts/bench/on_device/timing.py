"""Time of a repeated call."""

import statistics
import time
from collections.abc import Callable

MIN_REPEATS, MAX_REPEATS, MAX_S = 3, 20, 5.0


def time_call(call: Callable[[], object]) -> tuple[float, float]:
    """Return the median seconds of `call`, which must wait for its result, and their spread: (max - min) / median.

    The first call, which compiles, and the second do not count.
    """
    call()
    call()
    times: list[float] = []
    while len(times) < MIN_REPEATS or (len(times) < MAX_REPEATS and sum(times) < MAX_S):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    median = statistics.median(times)
    return median, (max(times) - min(times)) / median
