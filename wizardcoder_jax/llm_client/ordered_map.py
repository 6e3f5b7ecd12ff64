"""A concurrent map over a stream of items that yields the results in the order of the items."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

STEPS_PER_REQUEST = 1.25  # steps per request in flight; above 1, because a step also writes and checks its answer
WINDOW_PER_CALLER = 4  # maximum number of items per concurrent step that are started but not yet yielded


def concurrent_steps(num_requests: int) -> int:
    """Return the number of concurrent steps that keeps `num_requests` requests in flight."""
    return math.ceil(STEPS_PER_REQUEST * num_requests)


async def map_in_order(
    step: Callable[[Item], Awaitable[Result]], items: Iterable[Item | None], concurrency: int
) -> AsyncGenerator[Result, None]:
    """Yield step(item) for each item, in the order of the items. An item is read from `items` only when it can be started.

    A result is stored until the results of all earlier items have been yielded. At most WINDOW_PER_CALLER * `concurrency`
    items are started but not yet yielded, counting both items in progress and stored results. After the first error no new item
    is started. The items in progress are still finished, because their answers are paid for, and the results of the items
    before the failed one are still yielded. If the caller leaves the loop, the items in progress are canceled.

    Args:
        step: coroutine function that computes the result of an item.
        items: the items. None means that the next item is not known until another result has been yielded.
        concurrency: maximum number of items in progress.
    """
    source = iter(items)
    started: deque[asyncio.Task[Result]] = deque()  # tasks in the order of their items
    finished = asyncio.Event()
    num_running, has_failed, has_more = 0, False, True

    def finish(task: asyncio.Task[Result]) -> None:
        nonlocal num_running, has_failed
        num_running -= 1
        has_failed = has_failed or task.cancelled() or task.exception() is not None
        finished.set()

    async def run(item: Item) -> Result:
        return await step(item)

    try:
        while True:
            while has_more and not has_failed and num_running < concurrency and len(started) < WINDOW_PER_CALLER * concurrency:
                try:
                    item = next(source)
                except StopIteration:
                    has_more = False
                    break
                if item is None:
                    break
                task = asyncio.create_task(run(item))
                task.add_done_callback(finish)
                started.append(task)
                num_running += 1
            while started and started[0].done() and not (has_failed and num_running):
                yield started.popleft().result()
            if not started:
                if has_more and not has_failed:
                    continue
                return
            finished.clear()
            await finished.wait()
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)
