import numpy as np
import pytest

from tests.helpers.small_datasets import Sample, dataset_of, random_samples
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.data.batches import Batches, ValidationBatches
from wizardcoder_jax.data.packed_dataset import FEATURES

pytestmark = pytest.mark.quick


def dataset(num_rows):
    """Return a dataset whose row r consists of one example, with all tokens equal to r + 1."""
    return dataset_of([Sample(r, np.full(5, r + 1), np.ones(5, bool)) for r in range(num_rows)], 4)


def uneven(num_rows, packs=False):
    """Return a dataset whose rows have different numbers of supervised tokens, at least one per row."""
    samples = list(random_samples(num_rows, 30, seed=1))
    for sample in samples:
        sample.loss_mask[-1] = True
    return dataset_of(samples, 30, packs)


@pytest.mark.parametrize(("num_rows", "batch_size"), [(1, 1), (1, 4), (3, 8), (10, 4), (10, 10), (7, 3)])
def test_each_row_occurs_exactly_once_per_epoch(num_rows, batch_size):
    batches = Batches(dataset(num_rows), batch_size, seed=0)
    rows = np.concatenate([batches.rows(step) for step in range(3 * num_rows)])
    for epoch in rows.reshape(-1, num_rows):
        assert sorted(epoch.tolist()) == list(range(num_rows))


def test_the_steps_of_an_epoch_consume_every_example_once():
    data = dataset_of(random_samples(60, 30), 30)
    batches = Batches(data, 1, seed=3)
    consumed = np.concatenate([batches.example_ids(step) for step in range(data.num_rows)])
    assert sorted(consumed.tolist()) == [3 * i for i in range(60)]


def test_epochs_and_seeds_have_different_orders():
    data = dataset(50)
    first, second = (Batches(data, 50, seed=0).rows(step).tolist() for step in (0, 1))
    assert first != second
    assert first != Batches(data, 50, seed=1).rows(0).tolist()
    assert first != sorted(first)


def test_a_batch_depends_only_on_its_step():
    data = dataset(10)
    walked = Batches(data, 4, seed=5)
    rows = [walked.rows(step) for step in range(40)]
    for step in (39, 0, 17, 3):
        np.testing.assert_array_equal(Batches(data, 4, seed=5).rows(step), rows[step])
        np.testing.assert_array_equal(walked.rows(step), rows[step])


def test_the_order_of_rows_never_changes_between_versions():
    """A change would reorder the data of every run that is resumed."""
    assert Batches(dataset(7), 7, seed=0).rows(0).tolist() == [2, 4, 3, 6, 5, 0, 1]


def test_the_batch_size_does_not_change_the_order():
    data = dataset(10)
    small = np.concatenate([Batches(data, 2, seed=1).rows(step) for step in range(15)])
    large = np.concatenate([Batches(data, 6, seed=1).rows(step) for step in range(5)])
    np.testing.assert_array_equal(small, large)


def test_a_batch_contains_the_features_of_its_rows():
    data = uneven(10)
    batches = Batches(data, 4, seed=0)
    batch, expected = batches.batch(3), data.features(batches.rows(3))
    assert tuple(batch) == (*FEATURES, "seeds")
    for name in FEATURES:
        assert batch[name].shape == (4, data.width)
        assert batch[name].dtype == (np.float32 if name == "weights" else np.int32)
        np.testing.assert_array_equal(batch[name] > 0 if name == "weights" else batch[name], expected[name])


@pytest.mark.parametrize("group", [None, 4, 2])
@pytest.mark.parametrize("num_hosts", [1, 2, 4])
def test_the_rows_of_all_hosts_make_up_the_batch(num_hosts, group):
    data, share = uneven(11), 8 // num_hosts
    whole = Batches(data, 8, 2, group).batch(6)
    slices = [Batches(data, 8, 2, group).batch(6, slice(host * share, (host + 1) * share)) for host in range(num_hosts)]
    strided = [Batches(data, 8, 2, group).batch(6, np.arange(host, 8, num_hosts)) for host in range(num_hosts)]
    for name in (*FEATURES, "seeds"):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in slices]), whole[name])
        for host, part in enumerate(strided):
            np.testing.assert_array_equal(part[name], whole[name][host::num_hosts])


def test_randomness_depends_only_on_seed_step_and_position():
    seeds = [Batches(uneven(rows), 8, seed).batch(step)["seeds"] for rows, seed, step in ((9, 0, 3), (30, 0, 3))]
    assert seeds[0].dtype == np.uint32
    np.testing.assert_array_equal(*seeds)
    others = [Batches(uneven(9), 8, seed).batch(step)["seeds"] for seed, step in ((0, 3), (0, 4), (1, 3))]
    assert len(set(np.concatenate(others).tolist())) == 24


def test_a_step_far_ahead_needs_no_earlier_steps():
    rows = Batches(dataset(3), 4, seed=0).rows(10**12)
    assert rows.shape == (4,)
    assert set(rows.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_token_mean_gives_every_supervised_token_of_a_step_the_same_weight(packs):
    data = uneven(40, packs)
    batches = Batches(data, 8, seed=0)
    losses = np.random.default_rng(0).random((8, data.width))
    for step in range(6):
        is_supervised = data.features(batches.rows(step))["weights"]
        loss = (batches.batch(step)["weights"].astype(float) * losses).sum()
        np.testing.assert_allclose(loss, losses[is_supervised].mean(), rtol=1e-6)


@pytest.mark.parametrize("group", [1, 2, 4, 8])
def test_original_equals_torchs_mean_over_the_means_of_microbatches(group):
    import torch

    data = uneven(40)
    batches = Batches(data, 8, 0, group)
    rng = np.random.default_rng(0)
    for step in range(4):
        batch = batches.batch(step)
        logits = torch.from_numpy(rng.normal(size=(8, data.width, 5)))
        targets = torch.from_numpy(batch["targets"]).long()
        labels = torch.where(torch.from_numpy(batch["weights"] > 0), targets, -100)
        means = [
            torch.nn.functional.cross_entropy(logits[i : i + group].flatten(0, 1), labels[i : i + group].flatten())
            for i in range(0, 8, group)
        ]
        each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        ours = (each.numpy() * batch["weights"].reshape(-1)).sum()
        np.testing.assert_allclose(ours, torch.stack(means).mean().item(), rtol=1e-6)


def test_the_token_counts_of_a_step_cover_all_hosts():
    data = uneven(40, packs=True)
    batches = Batches(data, 4, seed=0)
    batch = batches.batch(2)
    assert batches.token_counts(2) == ((batch["segment_ids"] > 0).sum(), (batch["weights"] > 0).sum())


def barren(num_rows, *barren_rows):
    samples = [Sample(10 * r, np.arange(5), np.full(5, r not in barren_rows)) for r in range(num_rows)]
    return dataset_of(samples, 8, packs=False)


def test_a_step_without_a_supervised_token_is_refused_before_training_and_when_read():
    batches = Batches(barren(4, 0, 1, 2, 3), 2, seed=0)
    for call in (lambda: batches.batch(1), lambda: batches.check_supervision(1, 2)):
        with pytest.raises(InputError, match=r"^step 1 \(examples \d+, \d+ ...\) have no supervised .* --max-length"):
            call()
    batches.check_supervision(1, 1)


def test_the_error_for_a_group_without_a_supervised_token_names_its_examples():
    data = barren(4, 2)
    Batches(data, 4, seed=0).check_supervision(0, 5)
    batches = Batches(data, 4, 0, 1)
    place = batches.rows(0).tolist().index(2)
    with pytest.raises(InputError, match=rf"sequences {place} to {place} of step 0 \(examples 20 ...\) .* --loss-group"):
        batches.batch(0)


@pytest.mark.parametrize(
    ("batch_size", "seed", "group", "complaint"),
    [
        (0, 0, None, "batch_size must be"),
        (1, -1, None, "seed must be"),
        (6, 0, 4, "batch_size 6 must be a positive multiple of the loss group size 4"),
        (6, 0, 0, "loss group size 0"),
    ],
)
def test_values_out_of_range_are_refused(batch_size, seed, group, complaint):
    with pytest.raises(InputError, match=complaint):
        Batches(dataset(1), batch_size, seed, group)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 32])
def test_validation_batches_contain_every_row_once_and_their_losses_sum_to_the_mean(batch_size):
    data = uneven(11)
    sweep, whole = ValidationBatches(data, batch_size), data.features(np.arange(data.num_rows))
    batches = [sweep.batch(i) for i in range(sweep.num_batches)]
    for name in FEATURES:
        together = np.concatenate([batch[name] for batch in batches])
        assert together.shape == (batch_size * sweep.num_batches, data.width)
        np.testing.assert_array_equal(together[:11] > 0 if name == "weights" else together[:11], whole[name])
        assert not together[11:].any()
    weights = np.concatenate([batch["weights"] for batch in batches])
    np.testing.assert_allclose(weights[weights > 0], 1 / whole["weights"].sum(), rtol=1e-6)
    backwards = np.arange(batch_size)[::-1]
    for name in (*FEATURES, "seeds"):
        np.testing.assert_array_equal(sweep.batch(sweep.num_batches - 1, backwards)[name], batches[-1][name][::-1])
