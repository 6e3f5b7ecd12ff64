"""Runs one function over many items in threads; the results come back in the order of the items."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    step: Callable[[Item], Result], items: Sequence[Item], concurrency: int, on_result: Callable[[Result], None]
) -> list[Result]:
    """[step(item) for item in items], `concurrency` at a time; `on_result` is called in this thread, in any order.

    The first error stops new items; items in progress are finished first, because their answers are paid for. Ctrl-C does
    not wait for them: the threads are daemons.
    """
    results: dict[int, Result] = {}
    errors: dict[int, Exception] = {}
    events: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # the index of a finished item, or None: a worker ended
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    stop = threading.Event()
    for index in range(len(items)):
        waiting.put(index)

    def work() -> None:
        while not stop.is_set():
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                results[index] = step(items[index])
                events.put(index)
            except Exception as error:
                errors[index] = error
                stop.set()
        events.put(None)

    num_running = min(concurrency, len(items))
    for _ in range(num_running):
        threading.Thread(target=work, daemon=True).start()
    try:
        while num_running:
            index = events.get()
            if index is None:
                num_running -= 1
            else:
                on_result(results[index])
    finally:
        stop.set()
    if errors:
        raise errors[min(errors)]
    return [results[index] for index in range(len(items))]
