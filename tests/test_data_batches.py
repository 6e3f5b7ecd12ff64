import numpy as np
import pytest

from wizardcoder_jax.data.batches import FEATURES, Batches
from wizardcoder_jax.data.packing import TokenisedExample, pack
from wizardcoder_jax.errors import InputError


def dataset(num_rows):
    """Row r holds one example, whose tokens are r + 1."""
    examples = [
        TokenisedExample(example_id=r, tokens=np.full(5, r + 1, np.int32), weights=np.ones(5, np.float32))
        for r in range(num_rows)
    ]
    return pack(examples, 4)


@pytest.mark.parametrize(("num_rows", "batch_size"), [(1, 1), (1, 4), (3, 8), (10, 4), (10, 10), (7, 3)])
def test_each_row_comes_exactly_once_an_epoch(num_rows, batch_size):
    batches = Batches(dataset(num_rows), batch_size, seed=0)
    rows = np.concatenate([batches.rows(step) for step in range(3 * num_rows)])
    for epoch in rows.reshape(-1, num_rows):
        assert sorted(epoch.tolist()) == list(range(num_rows))


def test_epochs_and_seeds_have_orders_of_their_own():
    data = dataset(50)
    first, second = (Batches(data, 50, seed=0).rows(step).tolist() for step in (0, 1))
    assert first != second
    assert first != Batches(data, 50, seed=1).rows(0).tolist()
    assert first != sorted(first)


def test_a_batch_depends_on_its_step_only_not_on_what_was_read_before():
    data = dataset(10)
    walked = Batches(data, 4, seed=5)
    rows = [walked.rows(step) for step in range(40)]
    for step in (39, 0, 17, 3):
        np.testing.assert_array_equal(Batches(data, 4, seed=5).rows(step), rows[step])
        np.testing.assert_array_equal(walked.rows(step), rows[step])


def test_the_order_of_rows_never_changes_between_versions():
    """Resumed runs rely on it: a change here reorders the data of every checkpoint in the world."""
    assert Batches(dataset(7), 7, seed=0).rows(0).tolist() == [2, 4, 3, 6, 5, 0, 1]


def test_the_batch_size_does_not_change_the_order():
    data = dataset(10)
    small = np.concatenate([Batches(data, 2, seed=1).rows(step) for step in range(15)])
    large = np.concatenate([Batches(data, 6, seed=1).rows(step) for step in range(5)])
    np.testing.assert_array_equal(small, large)


def test_a_batch_holds_its_rows_features():
    data = dataset(10)
    batches = Batches(data, 4, seed=0)
    batch = batches.batch(3)
    assert tuple(batch) == FEATURES
    for name, values in batch.items():
        assert values.shape == (4, 4)
        assert values.dtype == (np.float32 if name == "weights" else np.int32)
        np.testing.assert_array_equal(values, getattr(data, name)[batches.rows(3)])


@pytest.mark.parametrize("num_hosts", [1, 2, 4])
def test_the_hosts_slices_make_up_the_batch(num_hosts):
    data = dataset(10)
    share = 8 // num_hosts
    slices = [Batches(data, 8, seed=2).batch(6, host * share, (host + 1) * share) for host in range(num_hosts)]
    whole = Batches(data, 8, seed=2).batch(6)
    for name in FEATURES:
        np.testing.assert_array_equal(np.concatenate([part[name] for part in slices]), whole[name])


def test_a_step_far_ahead_is_reached_at_once():
    rows = Batches(dataset(3), 4, seed=0).rows(10**12)
    assert rows.shape == (4,)
    assert set(rows.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("batch_size", "seed", "name"), [(0, 0, "batch_size"), (1, -1, "seed")])
def test_values_out_of_range_are_named(batch_size, seed, name):
    with pytest.raises(InputError, match=f"{name} must be"):
        Batches(dataset(1), batch_size, seed)
