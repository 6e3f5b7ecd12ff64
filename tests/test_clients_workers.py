import threading

import pytest

from wizardcoder_jax.clients.workers import map_in_order


def ignore(_):
    pass


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_results_come_in_the_order_of_the_items(concurrency):
    seen = []
    assert map_in_order(lambda n: n * n, range(20), concurrency, seen.append) == [n * n for n in range(20)]
    assert sorted(seen) == [n * n for n in range(20)]


def test_no_items_give_no_results():
    assert map_in_order(str, [], 4, ignore) == []


def test_items_run_at_the_same_time():
    meeting = threading.Barrier(4, timeout=10)
    map_in_order(lambda _: meeting.wait(), range(4), 4, ignore)


def test_an_error_stops_new_items_and_lets_those_in_progress_end():
    started, ended, failing = [], [], []
    meeting = threading.Barrier(2, timeout=10)

    def step(n):
        started.append(n)
        if n == 0:
            failing.append(threading.current_thread())
        meeting.wait()
        if n == 0:
            raise ValueError("first")
        failing[0].join(timeout=10)
        ended.append(n)

    with pytest.raises(ValueError, match="first"):
        map_in_order(step, range(10), 2, ignore)
    assert sorted(started) == [0, 1]
    assert ended == [1]
