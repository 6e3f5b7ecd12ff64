import asyncio
import contextlib

import pytest

from wizardcoder_jax.llm_client.ordered_map import WINDOW_PER_CALLER, map_in_order

pytestmark = pytest.mark.quick


def run(step, items, concurrency):
    async def collect():
        return [result async for result in map_in_order(step, items, concurrency)]

    return asyncio.run(collect())


async def squared(n):
    await asyncio.sleep(0.001 * (n % 3))
    return n * n


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_results_come_in_the_order_of_the_items(concurrency):
    assert run(squared, range(20), concurrency) == [n * n for n in range(20)]


def test_no_items_give_no_results():
    assert run(squared, [], 4) == []


def test_items_run_concurrently():
    waiting, together = [], asyncio.Event()

    async def meet(n):
        waiting.append(n)
        if len(waiting) == 4:
            together.set()
        await asyncio.wait_for(together.wait(), timeout=10)

    run(meet, range(4), 4)


def test_a_slow_item_delays_no_more_than_the_window():
    taken, release = [], asyncio.Event()

    def items():
        for n in range(1000):
            taken.append(n)
            yield n

    async def step(n):
        if n == 0:
            await release.wait()
        return n

    async def check():
        async with contextlib.aclosing(map_in_order(step, items(), 3)) as results:
            first = asyncio.create_task(anext(results))
            for _ in range(200):
                await asyncio.sleep(0)
            assert not first.done() and len(taken) == WINDOW_PER_CALLER * 3
            release.set()
            assert await first == 0
            assert [result async for result in results] == list(range(1, 1000))

    asyncio.run(check())


def test_after_an_error_items_in_progress_finish_and_earlier_results_are_still_yielded():
    started, ended, handed_on, failed = [], [], [], asyncio.Event()

    async def step(n):
        started.append(n)
        if n == 2:
            failed.set()
            raise ValueError("second")
        if n in (1, 3):
            await failed.wait()
            await asyncio.sleep(0.01)
        ended.append(n)
        return n

    async def check():
        async for result in map_in_order(step, range(10), 3):
            handed_on.append(result)

    with pytest.raises(ValueError, match="second"):
        asyncio.run(check())
    assert started == [0, 1, 2, 3] or started == [0, 1, 2]
    assert ended == [n for n in (0, 1, 3) if n in started]
    assert handed_on == [0, 1]


def test_leaving_the_loop_cancels_items_in_progress():
    cancelled = []

    async def step(n):
        if n == 0:
            return n
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(n)
            raise

    async def check():
        async with contextlib.aclosing(map_in_order(step, range(4), 4)) as results:
            async for _ in results:
                break

    asyncio.run(check())
    assert sorted(cancelled) == [1, 2, 3]
