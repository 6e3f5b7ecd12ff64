import numpy as np
import pytest

from wizardcoder_jax.data.packing import TokenisedExample, assign_rows, pack


def random_examples(num_examples, max_length, seed=0):
    """Ids include 0 anywhere; example ids have gaps, as after drops."""
    rng = np.random.default_rng(seed)
    for i in range(num_examples):
        n = int(rng.integers(2, max_length + 1))
        tokens = rng.integers(0, 4, n).astype(np.int32)
        yield TokenisedExample(example_id=3 * i, tokens=tokens, weights=rng.integers(0, 2, n).astype(np.float32))


def unpack(packed):
    """example id -> (tokens, targets, weights, positions) of its segment."""
    found = {}
    for r in range(packed.num_rows):
        for segment, example_id in enumerate(packed.examples_in(r).tolist(), start=1):
            slots = packed.segment_ids[r] == segment
            assert example_id not in found
            arrays = (packed.tokens, packed.targets, packed.weights, packed.positions)
            found[example_id] = [array[r][slots] for array in arrays]
    return found


def test_every_example_comes_out_whole_once_with_its_next_token_targets():
    examples = list(random_examples(300, 64))
    found = unpack(pack(examples, 64))
    assert sorted(found) == [example.example_id for example in examples]
    for example in examples:
        tokens, targets, weights, positions = found[example.example_id]
        np.testing.assert_array_equal(tokens, example.tokens[:-1])
        np.testing.assert_array_equal(targets, example.tokens[1:])
        np.testing.assert_array_equal(weights, example.weights[1:])
        np.testing.assert_array_equal(positions, np.arange(len(tokens)))


def test_padding_stands_at_the_end_of_a_row_and_carries_no_weight():
    packed = pack(list(random_examples(50, 32)), 32)
    padding = packed.segment_ids == 0
    assert padding.any()
    assert (np.diff(padding.astype(int), axis=1) >= 0).all()
    for array in (packed.tokens, packed.targets, packed.weights, packed.positions):
        assert not array[padding].any()


def test_segments_of_a_row_count_up_from_one():
    packed = pack(list(random_examples(50, 32)), 32)
    for r in range(packed.num_rows):
        inside = packed.segment_ids[r][packed.segment_ids[r] > 0]
        assert inside[0] == 1
        assert set(np.diff(inside)) <= {0, 1}
        assert inside[-1] == len(packed.examples_in(r))


def test_packing_is_deterministic():
    packed, again = (pack(list(random_examples(200, 64)), 64) for _ in range(2))
    for name in ("tokens", "segment_ids", "example_ids", "row_starts"):
        np.testing.assert_array_equal(getattr(packed, name), getattr(again, name))


def test_each_item_goes_into_the_fullest_row_with_room():
    assert assign_rows(np.array([6, 5, 4, 4, 1]), 10) == [[0, 2], [1, 3, 4]]
    assert assign_rows(np.array([3, 7, 2, 8]), 10) == [[3, 2], [1, 0]]


def slow_best_fit(lengths, capacity):
    """Best-fit-decreasing as the textbook has it, by looking at every row; returns the spaces left."""
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
def test_a_length_that_no_row_can_hold_is_refused(lengths):
    with pytest.raises(ValueError, match="lengths must be in 1"):
        assign_rows(np.array(lengths), 10)
