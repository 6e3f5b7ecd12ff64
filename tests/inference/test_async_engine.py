"""The asynchronous engine with callers that leave early, submit many requests, or submit invalid requests."""

import asyncio
import contextlib
import dataclasses
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import tiny_models
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.inference.async_engine import AsyncEngine
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.request import GenerationRequest
from wizardcoder_jax.inference.request_queue import RequestQueue

PROMPT = tuple(np.random.default_rng(0).integers(2, 380, 9).tolist())
TIMEOUT_S = 300


@pytest.fixture(scope="module")
def model(load_engine_model):
    return load_engine_model(tiny_models.llama())


def make_request(num_new=40, i=0, prompt=PROMPT):
    return GenerationRequest(prompt=prompt, key=(0, i), max_length=len(prompt) + num_new)


def run_with_engine(model, work):
    """Run the coroutine function `work` with an engine of two slots, and return its result."""

    @contextlib.contextmanager
    def make_engine():
        yield Engine(model, num_slots=2, max_length=256, eos_ids=[], dtype=jnp.float32)

    async def run():
        engine = AsyncEngine(make_engine)
        try:
            return await asyncio.wait_for(work(engine), TIMEOUT_S)
        finally:
            await engine.aclose()

    return asyncio.run(run())


async def record_end(engine, name, order, request, owner):
    """Append `name` to `order` when the answer to a request has finished."""
    async for update in engine.stream(request, owner):
        if update.generation is not None:
            order.append(name)
            return update.generation
    raise AssertionError


def test_an_owner_with_128_requests_does_not_delay_the_others(model):
    order = []

    async def work(engine):
        many = [asyncio.create_task(record_end(engine, i, order, make_request(17, i), "many")) for i in range(128)]
        while not order:
            await asyncio.sleep(0)
        few = [asyncio.create_task(record_end(engine, name, order, make_request(17), name)) for name in ("one", "another")]
        await asyncio.gather(*many, *few)

    run_with_engine(model, work)
    assert len(order) == 130
    assert max(order.index("one"), order.index("another")) < 20
    assert sorted(name for name in order if isinstance(name, int)) == list(range(128))


def test_an_invalid_request_only_fails_its_own_caller(model):
    async def work(engine):
        valid = asyncio.create_task(engine.generate(make_request(60)))
        for invalid in (make_request(prompt=()), make_request(num_new=0), make_request(num_new=1000)):
            with pytest.raises(InputError, match="a request needs a nonempty prompt"):
                await engine.generate(invalid)
            assert not engine.has_failed
        return len((await valid).tokens), len((await engine.generate(make_request(5))).tokens)

    assert run_with_engine(model, work) == (60, 5)


def test_an_error_that_ends_the_engine_is_raised_for_current_and_later_callers(model):
    def fail(tokens):
        raise ZeroDivisionError("of the test")

    async def work(engine):
        failing = GenerationRequest(prompt=PROMPT, key=(0, 0), max_length=90, should_stop=fail)
        requests = (make_request(), failing, make_request())
        results = await asyncio.gather(*map(engine.generate, requests), return_exceptions=True)
        with pytest.raises(ZeroDivisionError):
            await engine.generate(make_request())
        return results, engine.has_failed

    results, has_failed = run_with_engine(model, work)
    assert has_failed and {type(error) for error in results} == {ZeroDivisionError}


def test_the_slot_and_queue_entry_of_a_caller_that_leaves_are_freed(model):
    order, has_begun, is_released = [], threading.Event(), threading.Event()

    def block(tokens):
        """Block the engine until the other callers have left."""
        has_begun.set()
        is_released.wait(TIMEOUT_S)
        return False

    async def work(engine):
        blocked = [dataclasses.replace(make_request(200, i), should_stop=block) for i in range(20)]
        leaving = [asyncio.create_task(record_end(engine, i, order, one, "leaving")) for i, one in enumerate(blocked)]
        staying = asyncio.create_task(record_end(engine, "staying", order, make_request(30), "leaving"))
        await asyncio.to_thread(has_begun.wait, TIMEOUT_S)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        is_released.set()
        await staying

    run_with_engine(model, work)
    assert order == ["staying"]


def test_slots_go_to_the_owner_with_the_fewest_and_then_to_the_first_request():
    queue = RequestQueue()
    for owner, item in (("a", 1), ("a", 2), ("b", 3), ("a", 4), ("c", 5), ("b", 6)):
        queue.add(item, owner)
    assert len(queue) == 6
    slot_owners = ["a", "d"]
    popped = []
    for owner in ("b", "c", "a", "b", "a"):
        popped.append(queue.pop(slot_owners))
        slot_owners.append(owner)
    assert popped == [3, 5, 1, 6, 2] and len(queue) == 1
    queue.remove(lambda item: item == 4)
    assert not queue
