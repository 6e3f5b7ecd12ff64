import numpy as np
import pytest

from tests.helpers.small_datasets import Sample, dataset_of, random_samples
from wizardcoder_jax.data.packing import assign_rows

pytestmark = pytest.mark.quick


def features_of(dataset):
    return dataset.features(np.arange(dataset.num_rows))


def unpack(dataset):
    """Return example id -> (tokens, targets, weights, positions) of its segment."""
    found, features = {}, features_of(dataset)
    for r in range(dataset.num_rows):
        for segment, example_id in enumerate(dataset.examples_in(r).tolist(), start=1):
            slots = features["segment_ids"][r] == segment
            assert example_id not in found
            found[example_id] = [features[name][r][slots] for name in ("tokens", "targets", "weights", "positions")]
    return found


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_every_example_is_in_the_rows_once_with_next_token_targets(packs):
    samples = list(random_samples(300, 64))
    found = unpack(dataset_of(samples, 64, packs))
    assert sorted(found) == [sample.example_id for sample in samples]
    for sample in samples:
        tokens, targets, weights, positions = found[sample.example_id]
        np.testing.assert_array_equal(tokens, sample.tokens[:-1])
        np.testing.assert_array_equal(targets, sample.tokens[1:])
        np.testing.assert_array_equal(weights, sample.loss_mask[1:])
        np.testing.assert_array_equal(positions, np.arange(len(tokens)))


@pytest.mark.parametrize(("vocab_size", "top"), [(2**16, 2**16 - 1), (2**16 + 1, 2**16), (2**31, 2**31 - 1)])
def test_ids_of_any_size_are_stored_unchanged(vocab_size, top):
    sample = Sample(0, np.array([0, top, 0, 7]), np.ones(4, bool))
    dataset = dataset_of([sample], 8, vocab_size=vocab_size)
    assert features_of(dataset)["tokens"].tolist() == [[0, top, 0, 0, 0, 0, 0, 0]]
    assert features_of(dataset)["targets"].tolist() == [[top, 0, 7, 0, 0, 0, 0, 0]]
    assert dataset.store.tokens.itemsize == (2 if top < 2**16 else 4)


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_padding_is_at_the_end_of_a_row_and_has_no_weight(packs):
    features = features_of(dataset_of(random_samples(50, 32), 32, packs))
    padding = features["segment_ids"] == 0
    assert padding.any()
    assert (np.diff(padding.astype(int), axis=1) >= 0).all()
    for name in ("tokens", "targets", "weights", "positions"):
        assert not features[name][padding].any()


def test_segments_of_a_row_count_up_from_one():
    dataset = dataset_of(random_samples(50, 32), 32)
    for r, segments in enumerate(features_of(dataset)["segment_ids"]):
        inside = segments[segments > 0]
        assert inside[0] == 1
        assert set(np.diff(inside)) <= {0, 1}
        assert inside[-1] == len(dataset.examples_in(r))


def test_packing_is_deterministic():
    first, again = (dataset_of(random_samples(200, 64), 64) for _ in range(2))
    for name in ("members", "item_ids", "starts"):
        np.testing.assert_array_equal(getattr(first.rows, name), getattr(again.rows, name))


def test_the_counts_of_a_row_match_its_features():
    dataset = dataset_of(random_samples(200, 64), 64)
    features = features_of(dataset)
    np.testing.assert_array_equal(dataset.rows.num_tokens, (features["segment_ids"] > 0).sum(axis=1))
    np.testing.assert_array_equal(dataset.rows.num_supervised, features["weights"].sum(axis=1))


@pytest.mark.parametrize(("longest", "width"), [(2, 128), (129, 128), (130, 256), (300, 300), (250, 256)])
def test_padded_rows_have_the_width_of_the_longest_rounded_up_to_128(longest, width):
    samples = [Sample(i, np.ones(n, int), np.ones(n, bool)) for i, n in enumerate((longest, 2))]
    dataset = dataset_of(samples, 300, packs=False)
    assert (dataset.num_rows, dataset.width) == (2, width)


def test_an_example_without_a_target_is_a_row_of_padding():
    dataset = dataset_of(
        [Sample(0, np.array([5]), np.array([True])), Sample(1, np.arange(3), np.ones(3, bool))], 8, packs=False
    )
    assert features_of(dataset)["segment_ids"].sum(axis=1).tolist() == [0, 2]
    assert dataset.rows.num_supervised.tolist() == [0, 2]


def test_each_example_goes_into_the_fullest_row_with_space():
    assert assign_rows(np.array([6, 5, 4, 4, 1]), 10) == [[0, 2], [1, 3, 4]]
    assert assign_rows(np.array([3, 7, 2, 8]), 10) == [[3, 2], [1, 0]]


def slow_best_fit(lengths, capacity):
    """Pack with a textbook best-fit-decreasing that checks every row; return the free space of each row."""
    spaces = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [i for i, space in enumerate(spaces) if space >= length]
        if not fitting:
            spaces.append(capacity)
            fitting = [len(spaces) - 1]
        spaces[min(fitting, key=spaces.__getitem__)] -= length
    return spaces


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_textbook_best_fit_decreasing(seed):
    lengths = np.random.default_rng(seed).integers(1, 65, 400)
    rows = assign_rows(lengths, 64)
    assert sorted(64 - int(lengths[row].sum()) for row in rows) == sorted(slow_best_fit(lengths, 64))


@pytest.mark.parametrize("lengths", [[0, 3], [11]])
def test_a_length_beyond_the_capacity_of_a_row_is_refused(lengths):
    with pytest.raises(ValueError, match="lengths must be in 1"):
        assign_rows(np.array(lengths), 10)
