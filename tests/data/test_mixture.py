import numpy as np
import pytest

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.data.mixture import repeat_examples, repeats_per_example

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("sizes", "rates", "totals"),
    [
        ([10, 10], [1, 1], [10, 10]),
        ([100, 10], [1, 1], [100, 100]),  # the larger task occurs once, the smaller ten times
        ([100, 10], [3, 1], [100, 33]),  # rounded from 33 1/3
        ([100, 10], [20, 1], [200, 10]),  # the second task is larger relative to its rate
        ([7], [0.3], [7]),
        ([1000, 30, 5], [0.5, 0.3, 0.2], [1000, 600, 400]),
    ],
)
def test_the_task_that_is_largest_relative_to_its_rate_occurs_once_and_the_rates_hold(sizes, rates, totals):
    times = repeats_per_example(sizes, rates, seed=0)
    assert [int(each.sum()) for each in times] == totals
    assert any((each == 1).all() for each in times)
    for size, each in zip(sizes, times, strict=True):
        assert len(each) == size and each.max() - each.min() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_random_rates_hold_to_within_half_an_example(seed):
    rng = np.random.default_rng(seed)
    sizes, rates = rng.integers(1, 500, 4).tolist(), (rng.random(4) + 0.05).tolist()
    totals = np.array([each.sum() for each in repeats_per_example(sizes, rates, seed)])
    scale = max(size / rate for size, rate in zip(sizes, rates, strict=True))
    assert np.abs(totals - np.array(rates) * scale).max() <= 0.5 + 1e-9
    assert (totals >= sizes).all()


def test_fractional_repeats_depend_only_on_the_seed():
    draws = [repeats_per_example([100, 15], [1, 1], seed)[1].tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_repetitions_are_numbered():
    examples, again = repeat_examples(np.array([2, 0, 3, 1]))
    assert (examples.tolist(), again.tolist()) == ([0, 2, 3, 0, 2, 2], [0, 0, 0, 1, 1, 2])
    assert [len(part) for part in repeat_examples(np.zeros(3, int))] == [0, 0]


def test_a_rate_that_makes_an_epoch_too_long_is_refused():
    with pytest.raises(InputError, match=r"would have 1e\+09 examples because small tasks are repeated .* raise the rate"):
        repeats_per_example([1000, 10], [1e-6, 1], seed=0)
