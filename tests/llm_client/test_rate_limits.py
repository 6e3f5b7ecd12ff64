import asyncio
import random

import pytest

from tests.helpers import virtual_time
from wizardcoder_jax.llm_client.rate_limits import RateLimiter

pytestmark = pytest.mark.quick

MINUTE_S = 60.0


def send_all(tokens, *, concurrency, latency_s=lambda draw: 0.3, **limits):
    """Return (time, tokens used) of each request, sent by callers as fast as the limits allow."""
    sent, draw = [], random.Random(0)

    async def caller(rates, waiting):
        for most, used in waiting:
            async with rates.lock:
                while (delay_s := rates.delay_s(most)) > 0:
                    await rates.wait(delay_s)
                ticket = rates.take(most)
            sent.append((asyncio.get_running_loop().time(), used))
            await asyncio.sleep(latency_s(draw))
            rates.settle(ticket, used)

    async def run():
        named = {"requests_per_minute": None, "tokens_per_minute": None, **limits}
        rates, waiting = RateLimiter(**named), iter(tokens)
        await asyncio.gather(*(caller(rates, waiting) for _ in range(concurrency)))

    virtual_time.run(run())
    return sent


def most_in_a_minute(sent, amount):
    """Return the maximum sum of `amount` over any 60 s, both ends included."""
    most = total = start = 0
    for time_s, used in sent:
        total += amount(used)
        while sent[start][0] < time_s - MINUTE_S:
            total -= amount(sent[start][1])
            start += 1
        most = max(most, total)
    return most


@pytest.mark.parametrize("limit", [1, 7, 60, 1000, 6000])
@pytest.mark.parametrize("concurrency", [1, 64])
def test_no_minute_has_more_requests_than_the_limit_and_the_limit_is_used(limit, concurrency):
    number = 3 * limit if limit < 100 else 2 * limit
    sent = send_all([(10, 10)] * number, concurrency=concurrency, requests_per_minute=limit)
    assert len(sent) == number
    assert most_in_a_minute(sent, lambda _: 1) <= limit
    fastest = min(limit / MINUTE_S, concurrency / 0.3)  # requests per second
    assert sent[-1][0] - sent[0][0] <= 1.1 * number / fastest


def test_requests_are_spaced_out_rather_than_sent_in_a_burst():
    sent = send_all([(10, 10)] * 600, concurrency=256, requests_per_minute=600)
    assert sum(time_s < 5 for time_s, _ in sent) <= 600 * 6 / 60 + 1


@pytest.mark.parametrize("seed", range(5))
def test_no_minute_has_more_tokens_than_the_limit_for_any_answers(seed):
    draw = random.Random(seed)
    most = [draw.randint(1, 3000) for _ in range(1500)]
    tokens = [(m, draw.randint(0, m)) for m in most]
    sent = send_all(
        tokens, concurrency=32, latency_s=lambda draw: draw.expovariate(1 / 5), tokens_per_minute=20000, requests_per_minute=90
    )
    assert len(sent) == len(tokens)
    assert most_in_a_minute(sent, lambda used: used) <= 20000
    assert most_in_a_minute(sent, lambda used: 1) <= 90


def test_tokens_that_answers_release_are_used_at_once():
    sent = send_all([(1000, 10)] * 100, concurrency=8, tokens_per_minute=2000)
    assert sent[-1][0] < 100 * 0.3  # it would take 50 minutes if calls counted with their maximum


def test_a_call_larger_than_the_limit_is_sent_alone():
    sent = send_all([(10, 10), (5000, 20), (10, 10)], concurrency=3, tokens_per_minute=100)
    assert [used for _, used in sent] == [10, 20, 10]
    assert sent[1][0] >= MINUTE_S


def test_without_limits_nobody_waits():
    sent = send_all([(10**9, 10**9)] * 1000, concurrency=1000)
    assert {time_s for time_s, _ in sent} == {0.0}
