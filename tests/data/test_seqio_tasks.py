"""The output of the instruction Task. Imports seqio and TensorFlow, which takes many seconds."""

import numpy as np
import pytest

from tests.helpers.byte_tokenizer import END, ByteTokenizer, tokenize_plainly
from tests.helpers.small_datasets import Sample, dataset_of
from wizardcoder_jax.core.instruction_template import with_input, wizardcoder_prompt
from wizardcoder_jax.data.instruction_records import read_example
from wizardcoder_jax.data.tokenization import tokenize_original


def odd_examples(count):
    for i in range(count):
        record = {"instruction": f"write {i} ünïcode", "input": "in\0put" * (i % 2), "output": "" if i == 5 else f"x{END}{i}\0"}
        yield read_example("", record)


def test_the_task_tokenizes_and_masks_as_the_recipe_says():
    import tensorflow as tf

    from wizardcoder_jax.data import seqio_tasks

    examples = list(odd_examples(seqio_tasks.EXAMPLES_PER_CALL + 3))
    expected = list(tokenize_plainly(examples, ByteTokenizer()))
    max_length = int(np.median([len(tokens) for tokens, _ in expected]))
    found = list(seqio_tasks.tokenize_instructions(examples, ByteTokenizer(), "token_mean", max_length))
    assert len(found) == len(expected)
    for example, (tokens, weights) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(example.tokens, tokens[:max_length])
        np.testing.assert_array_equal(example.loss_mask, weights[:max_length])
        assert (example.tokens.dtype, example.loss_mask.dtype) == (np.int32, bool)
        assert example.is_cut == (len(tokens) > max_length)
    assert {example.is_cut for example in found} == {True, False}
    vocabulary = (
        seqio_tasks.instruction_task(examples, ByteTokenizer(), "token_mean", max_length).output_features["tokens"].vocabulary
    )
    assert vocabulary.encode_tf(tf.constant("ab")).numpy().tolist() == vocabulary.encode("ab") == [98, 99]
    assert (vocabulary.eos_id, vocabulary.vocab_size) == (0, 257)


@pytest.mark.parametrize("max_length", [200, 1000])
def test_the_task_of_objective_original_equals_its_function(max_length):
    from wizardcoder_jax.data import seqio_tasks

    examples = list(odd_examples(20))
    texts = [wizardcoder_prompt(with_input(e.instruction, e.input)) for e in examples]
    expected = tokenize_original(texts, [e.output for e in examples], ByteTokenizer(), max_length)
    for ours, example in zip(
        seqio_tasks.tokenize_instructions(examples, ByteTokenizer(), "original", max_length), expected, strict=True
    ):
        np.testing.assert_array_equal(ours.tokens, example.tokens)
        np.testing.assert_array_equal(ours.loss_mask, example.loss_mask)
        assert ours.is_cut == example.is_cut


def test_our_packing_keeps_token_id_zero_but_the_packing_of_seqio_does_not():
    """We do not use seqio's packing because it treats id 0 as padding, which is StarCoder's end-of-text token."""
    import seqio
    import tensorflow as tf

    sequences = [np.asarray(ids, np.int32) for ids in ([5, 0, 6, 7, 0], [8, 9, 0])]

    source = tf.data.Dataset.from_generator(
        lambda: ({"tokens": ids} for ids in sequences), output_signature={"tokens": tf.TensorSpec([None], tf.int32)}
    )
    (lossy,) = seqio.utils.trim_and_pack_dataset(source, {"tokens": 8}).as_numpy_iterator()
    assert lossy["tokens"].tolist() == [5, 0, 6, 8, 9, 0, 0, 0]  # 7 and both end tokens are lost

    ours = dataset_of([Sample(i, ids, np.ones(len(ids), bool)) for i, ids in enumerate(sequences)], 8)
    features = ours.features(np.arange(1))
    assert features["tokens"].tolist() == [[5, 0, 6, 7, 8, 9, 0, 0]]
    assert features["targets"].tolist() == [[0, 6, 7, 0, 9, 0, 0, 0]]
    assert features["segment_ids"].tolist() == [[1, 1, 1, 1, 2, 2, 0, 0]]
    assert features["weights"].tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]
