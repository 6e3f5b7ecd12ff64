"""The only tests that import seqio and TensorFlow: both take many seconds."""

import numpy as np
from byte_tokenizer import END, ByteTokenizer, plain_tokenise

from wizardcoder_jax.data.examples import Example
from wizardcoder_jax.data.packing import TokenisedExample, pack


def test_the_task_gives_what_the_recipe_says():
    import tensorflow as tf

    from wizardcoder_jax.data import tasks

    examples = [
        Example(place="", instruction=f"write {i} ünïcode", input="in\0put" * (i % 2), output="" if i == 5 else f"x{END}{i}\0")
        for i in range(tasks.EXAMPLES_PER_CALL + 3)
    ]
    found = list(tasks.tokenise(examples, ByteTokenizer()))
    expected = list(plain_tokenise(examples, ByteTokenizer()))
    assert len(found) == len(expected)
    for pair, expected_pair in zip(found, expected, strict=True):
        for array, expected_array in zip(pair, expected_pair, strict=True):
            np.testing.assert_array_equal(array, expected_array)
            assert array.dtype == expected_array.dtype
    vocabulary = tasks.instruction_task(examples, ByteTokenizer()).output_features["tokens"].vocabulary
    assert vocabulary.encode_tf(tf.constant("ab")).numpy().tolist() == vocabulary.encode("ab") == [98, 99]
    assert (vocabulary.eos_id, vocabulary.vocab_size) == (0, 257)


def test_token_id_zero_survives_our_packing_and_not_seqios():
    """Why nothing here is packed by seqio: it takes 0 for padding, StarCoder's end of text is 0."""
    import seqio
    import tensorflow as tf

    sequences = [np.asarray(ids, np.int32) for ids in ([5, 0, 6, 7, 0], [8, 9, 0])]

    source = tf.data.Dataset.from_generator(
        lambda: ({"tokens": ids} for ids in sequences), output_signature={"tokens": tf.TensorSpec([None], tf.int32)}
    )
    (lossy,) = seqio.utils.trim_and_pack_dataset(source, {"tokens": 8}).as_numpy_iterator()
    assert lossy["tokens"].tolist() == [5, 0, 6, 8, 9, 0, 0, 0]  # 7 and both ends are gone

    examples = [
        TokenisedExample(example_id=i, tokens=ids, weights=np.ones(len(ids), np.float32)) for i, ids in enumerate(sequences)
    ]
    ours = pack(examples, 8)
    assert ours.tokens.tolist() == [[5, 0, 6, 7, 8, 9, 0, 0]]
    assert ours.targets.tolist() == [[0, 6, 7, 0, 9, 0, 0, 0]]
    assert ours.segment_ids.tolist() == [[1, 1, 1, 1, 2, 2, 0, 0]]
    assert ours.weights.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]
