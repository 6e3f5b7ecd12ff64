"""A concurrent map over a stream of items whose results come in the order of the items."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

STEPS_PER_REQUEST = 1.25  # while some steps write or check an answer, the others keep the server busy
WINDOW_PER_CALLER = 4  # unfinished items per concurrent step: a bound on the results that one slow item can delay


def concurrent_steps(num_requests: int) -> int:
    """Return how many steps to run concurrently to keep `num_requests` requests in flight."""
    return math.ceil(STEPS_PER_REQUEST * num_requests)


async def map_in_order(
    step: Callable[[Item], Awaitable[Result]], items: Iterable[Item | None], concurrency: int
) -> AsyncGenerator[Result, None]:
    """Yield step(item) for each item, in the order of the items. Items are taken from their source as they are needed.

    Results wait for those of earlier items, at most WINDOW_PER_CALLER * `concurrency` of them. After the first error no new
    item is started, but items in progress are finished, because their answers are paid for, and the results before the error
    are still yielded. Leaving the loop cancels the items in progress.

    Args:
        step: computes the result of an item.
        items: source of the items, e.g. a file. None means that the next item is not known before another result was yielded.
        concurrency: maximum number of items in progress.
    """
    source = iter(items)
    started: deque[asyncio.Task[Result]] = deque()  # in the order of the items
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
