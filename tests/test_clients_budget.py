import threading

import pytest

from wizardcoder_jax.clients.budget import Budget
from wizardcoder_jax.clients.ledger import Spent
from wizardcoder_jax.errors import StoppedEarlyError


def budget(max_requests=None, max_usd=None, max_tokens=None, **spent):
    return Budget(max_requests=max_requests, max_usd=max_usd, max_tokens=max_tokens, spent=Spent(**spent))


def test_no_limit_is_no_limit():
    free = budget()
    for _ in range(100):
        free.reserve(1e6)


def test_calls_of_earlier_runs_count():
    with pytest.raises(StoppedEarlyError, match="--max-requests 5"):
        budget(max_requests=5, requests=5).reserve(0.0)
    with pytest.raises(StoppedEarlyError, match="--max-usd 1"):
        budget(max_usd=1.0, usd=0.9).reserve(0.2)


def test_a_failed_call_gives_its_reservation_back():
    one = budget(max_requests=1, max_usd=1.0)
    for _ in range(3):
        one.reserve(1.0)
        one.settle(1.0, requests=0, usd=0.0)
    one.reserve(1.0)
    one.settle(1.0, requests=1, usd=0.3)
    with pytest.raises(StoppedEarlyError, match="1 calls made"):
        one.reserve(0.1)


def test_a_call_waits_while_only_calls_in_flight_stand_in_its_way():
    shared = budget(max_usd=1.0)
    shared.reserve(0.8)
    reserved = threading.Event()
    waiter = threading.Thread(target=lambda: (shared.reserve(0.8), reserved.set()), daemon=True)
    waiter.start()
    assert not reserved.is_set()
    shared.settle(0.8, requests=1, usd=0.1)
    waiter.join(timeout=10)
    assert reserved.is_set()


def test_many_threads_cannot_overshoot():
    shared = budget(max_requests=40, max_usd=3.0)
    lock = threading.Lock()
    in_flight, spent, most_usd, num_calls = 0, 0.0, 0.0, 0

    def work():
        nonlocal in_flight, spent, most_usd, num_calls
        while True:
            try:
                shared.reserve(0.1)
            except StoppedEarlyError:
                return
            with lock:
                in_flight, num_calls = in_flight + 1, num_calls + 1
                most_usd = max(most_usd, spent + 0.1 * in_flight)
            with lock:
                in_flight, spent = in_flight - 1, spent + 0.05
            shared.settle(0.1, requests=1, usd=0.05)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert num_calls == 40
    assert most_usd <= 3.0 + 1e-9


def test_tokens_in_flight_and_of_earlier_runs_count():
    limited = budget(max_tokens=100, tokens=40)
    limited.reserve(0.0, tokens=50)
    limited.settle(0.0, requests=1, usd=0.0, reserved_tokens=50, tokens=10)
    limited.reserve(0.0, tokens=50)
    limited.settle(0.0, requests=0, usd=0.0, reserved_tokens=50, tokens=0)
    with pytest.raises(StoppedEarlyError, match=r"--max-tokens 100 leaves no room for a call of up to 51 .50 spent."):
        limited.reserve(0.0, tokens=51)
