"""The engine in its thread: callers who come and go, who ask for much, and who ask for what cannot be."""

import asyncio
import contextlib
import dataclasses
import threading

import jax
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


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return jax.jit(lambda m: m.unstack_layers())(tiny_models.ours(tiny_models.llama(), tmp_path_factory.mktemp("live")))


def request(new=40, i=0, prompt=PROMPT):
    return GenerationRequest(prompt=prompt, key=(0, i), max_length=len(prompt) + new)


def live(model, **more):
    @contextlib.contextmanager
    def make():
        yield Engine(model, **{"num_slots": 2, "max_length": 256, "eos_ids": [], "dtype": jnp.float32, **more})

    return AsyncEngine(make)


def with_engine(engine, work):
    """What `work`, a coroutine of the engine, gives."""

    async def run():
        try:
            return await asyncio.wait_for(work(engine), timeout=120)
        finally:
            await engine.aclose()

    return asyncio.run(run())


async def ended(engine, name, order, one, owner):
    async for update in engine.stream(one, owner):
        if update.generation is not None:
            order.append(name)
            return update.generation
    raise AssertionError


def test_one_who_asks_for_128_answers_does_not_keep_another_waiting(model):
    order = []

    async def work(engine):
        many = [asyncio.create_task(ended(engine, i, order, request(17, i), "many")) for i in range(128)]
        while not order:
            await asyncio.sleep(0)
        few = [asyncio.create_task(ended(engine, name, order, request(17), name)) for name in ("one", "another")]
        await asyncio.gather(*many, *few)

    with_engine(live(model), work)
    assert len(order) == 130
    assert max(order.index("one"), order.index("another")) < 20
    many = [name for name in order if isinstance(name, int)]
    assert sorted(many) == list(range(128))


def test_what_cannot_be_answered_fails_its_caller_alone(model):
    async def work(engine):
        good = asyncio.create_task(engine.generate(request(60)))
        for bad in (request(prompt=()), request(new=0), request(new=1000)):
            with pytest.raises(InputError, match="a request needs a nonempty prompt"):
                await engine.generate(bad)
            assert not engine.has_failed
        return len((await good).tokens), len((await engine.generate(request(5))).tokens)

    assert with_engine(live(model), work) == (60, 5)


def test_what_ends_the_engine_is_told_to_all_and_to_those_who_come_later(model):
    def fail(tokens):
        raise ZeroDivisionError("of the test")

    async def work(engine):
        failing = GenerationRequest(prompt=PROMPT, key=(0, 0), max_length=90, should_stop=fail)
        found = await asyncio.gather(*map(engine.generate, (request(), failing, request())), return_exceptions=True)
        with pytest.raises(ZeroDivisionError):
            await engine.generate(request())
        return found, engine.has_failed

    found, has_failed = with_engine(live(model), work)
    assert has_failed and {type(error) for error in found} == {ZeroDivisionError}


def test_a_caller_that_leaves_gives_its_slot_up_and_its_place_in_the_queue(model):
    order, begun, go_on = [], threading.Event(), threading.Event()

    def hold(tokens):
        """Keeps the engine where it is until the others have left."""
        begun.set()
        go_on.wait(60)
        return False

    async def work(engine):
        held = [dataclasses.replace(request(200, i), should_stop=hold) for i in range(20)]
        leaving = [asyncio.create_task(ended(engine, i, order, one, "leaving")) for i, one in enumerate(held)]
        staying = asyncio.create_task(ended(engine, "staying", order, request(30), "leaving"))
        await asyncio.to_thread(begun.wait, 60)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        go_on.set()
        await staying

    with_engine(live(model), work)
    assert order == ["staying"]


def test_slots_go_to_those_who_have_fewest_and_then_to_those_who_came_first():
    waiting = RequestQueue()
    for owner, item in (("a", 1), ("a", 2), ("b", 3), ("a", 4), ("c", 5), ("b", 6)):
        waiting.add(item, owner)
    assert len(waiting) == 6
    held = ["a", "d"]
    taken = []
    for owner in ("b", "c", "a", "b", "a"):
        taken.append(waiting.pop(held))
        held.append(owner)
    assert taken == [3, 5, 1, 6, 2] and len(waiting) == 1
    waiting.remove(lambda item: item == 4)
    assert not waiting
