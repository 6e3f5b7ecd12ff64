import asyncio

import pytest

from wizardcoder_jax.core.errors import StoppedEarlyError
from wizardcoder_jax.llm_client.budget import Budget
from wizardcoder_jax.llm_client.ledger import Spending

pytestmark = pytest.mark.quick


def budget(max_requests=None, max_usd=None, max_tokens=None, **spent):
    return Budget(max_requests=max_requests, max_usd=max_usd, max_tokens=max_tokens, spent=Spending(**spent))


def reserve(budget, usd, tokens=0):
    asyncio.run(budget.reserve(usd, tokens))


def test_calls_are_unlimited_by_default():
    free = budget()
    for _ in range(100):
        reserve(free, 1e6)


def test_calls_of_earlier_runs_count():
    with pytest.raises(StoppedEarlyError, match="--max-requests 5"):
        reserve(budget(max_requests=5, requests=5), 0.0)
    with pytest.raises(StoppedEarlyError, match="--max-usd 1"):
        reserve(budget(max_usd=1.0, usd=0.9), 0.2)


def test_a_failed_call_releases_its_reservation():
    one = budget(max_requests=1, max_usd=1.0)
    for _ in range(3):
        reserve(one, 1.0)
        one.settle(1.0, requests=0, usd=0.0)
    reserve(one, 1.0)
    one.settle(1.0, requests=1, usd=0.3)
    with pytest.raises(StoppedEarlyError, match="1 calls made"):
        reserve(one, 0.1)


def test_a_call_waits_for_reservations_of_calls_in_flight():
    async def run():
        shared = budget(max_usd=1.0)
        await shared.reserve(0.8)
        waiter = asyncio.create_task(shared.reserve(0.8))
        await asyncio.sleep(0)
        assert not waiter.done()
        shared.settle(0.8, requests=1, usd=0.1)
        await asyncio.wait_for(waiter, timeout=10)

    asyncio.run(run())


@pytest.mark.parametrize("usd_spent", [0.0625, 0.0, 0.125])
def test_concurrent_callers_use_the_limits_fully_and_never_exceed_them(usd_spent):
    shared = budget(max_requests=40, max_usd=3.0)
    in_flight, spent, most_usd, num_calls = 0, 0.0, 0.0, 0

    async def work(i):
        nonlocal in_flight, spent, most_usd, num_calls
        while True:
            await shared.reserve(0.125)
            in_flight, num_calls = in_flight + 1, num_calls + 1
            most_usd = max(most_usd, spent + 0.125 * in_flight)
            await asyncio.sleep(0.001 * (i % 3))
            in_flight, spent = in_flight - 1, spent + usd_spent
            shared.settle(0.125, requests=1, usd=usd_spent)

    async def run():
        return await asyncio.gather(*(work(i) for i in range(16)), return_exceptions=True)

    assert {type(error) for error in asyncio.run(run())} == {StoppedEarlyError}
    assert num_calls == (24 if usd_spent == 0.125 else 40)
    assert most_usd <= 3.0


def test_tokens_in_flight_and_of_earlier_runs_count():
    limited = budget(max_tokens=100, tokens=40)
    reserve(limited, 0.0, tokens=50)
    limited.settle(0.0, requests=1, usd=0.0, reserved_tokens=50, tokens=10)
    reserve(limited, 0.0, tokens=50)
    limited.settle(0.0, requests=0, usd=0.0, reserved_tokens=50, tokens=0)
    with pytest.raises(StoppedEarlyError, match=r"--max-tokens 100 is too low for .* up to 51 tokens .50 spent."):
        reserve(limited, 0.0, tokens=51)
