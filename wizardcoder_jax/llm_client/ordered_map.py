"""Runs one coroutine function over a stream of items, several at a time; the results come in the order of the items."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

STEPS_PER_REQUEST = 1.25  # while some write an answer down or check it, others keep the server busy
WINDOW_PER_CALLER = 4  # items begun and not yet handed on, for each that runs: what one slow item may hold up


def steps_for(num_requests: int) -> int:
    """Steps to have in progress together, for so many requests in flight."""
    return math.ceil(STEPS_PER_REQUEST * num_requests)


async def map_in_order(
    step: Callable[[Item], Awaitable[Result]], items: Iterable[Item | None], concurrency: int
) -> AsyncGenerator[Result, None]:
    """Yields step(item) for each item, `concurrency` at a time; items are taken from their source as they are needed.

    Results wait for those of earlier items, at most WINDOW_PER_CALLER times `concurrency` of them. The first error stops new
    items; items in progress are finished first, because their answers are paid for, and the results before the error are
    still yielded. Leaving the loop cancels what is in progress.

    Args:
        step: makes a result of an item.
        items: may be read from a file; None where the next is not known before another result has been handed on.
        concurrency: items in progress together.
    """
    source = iter(items)
    begun: deque[asyncio.Task[Result]] = deque()  # in the order of the items
    ended = asyncio.Event()
    num_running, has_failed, has_more = 0, False, True

    def end(task: asyncio.Task[Result]) -> None:
        nonlocal num_running, has_failed
        num_running -= 1
        has_failed = has_failed or task.cancelled() or task.exception() is not None
        ended.set()

    async def run(item: Item) -> Result:
        return await step(item)

    try:
        while True:
            while has_more and not has_failed and num_running < concurrency and len(begun) < WINDOW_PER_CALLER * concurrency:
                try:
                    item = next(source)
                except StopIteration:
                    has_more = False
                    break
                if item is None:
                    break
                task = asyncio.create_task(run(item))
                task.add_done_callback(end)
                begun.append(task)
                num_running += 1
            while begun and begun[0].done() and not (has_failed and num_running):
                yield begun.popleft().result()
            if not begun:
                if has_more and not has_failed:
                    continue
                return
            ended.clear()
            await ended.wait()
    finally:
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
