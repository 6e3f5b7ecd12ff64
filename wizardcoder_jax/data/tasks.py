"""The seqio Task of instruction tuning; the only file that imports seqio and TensorFlow (10 s and more, 870 MB).

seqio owns source, prompt, tokenisation and loss weights. It does not pack, pad or trim here: its packer takes 0 for
padding and keeps the first count(value != 0) entries (seqio 0.0.20, utils.py, _pack_with_tf_ops), which cuts the tail of
every sequence that holds token id 0, StarCoder's <|endoftext|>.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import seqio
import tensorflow as tf

from wizardcoder_jax import prompts
from wizardcoder_jax.data.examples import Example
from wizardcoder_jax.data.tokenizer import Tokenizer

# Examples tokenised in one call from TensorFlow into Python: one at a time, the crossing costs more than the work.
EXAMPLES_PER_CALL = 256


class TokenizerVocabulary(seqio.Vocabulary):
    """A tokenizer as a seqio vocabulary, for encoding only."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    @property
    def eos_id(self) -> int:
        """The id that ends a response."""
        return self.tokenizer.eos_id

    @property
    def unk_id(self) -> None:
        """Byte-level tokenizers know every text."""
        return None

    @property
    def _base_vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def _encode(self, s: str) -> list[int]:
        return list(self.tokenizer.encode(s))

    def _encode_tf(self, s: Any) -> Any:
        def ids(text: Any) -> np.ndarray:
            # bytes in a graph, a 0-d array when eager; as an object, because numpy's own strings lose trailing NULs
            return np.asarray(self._encode(np.asarray(text, object).item().decode()), np.int32)

        return tf.ensure_shape(tf.numpy_function(ids, [s], tf.int32), [None])

    def _decode(self, ids: Any) -> NoReturn:
        raise NotImplementedError("this vocabulary encodes only")

    def _decode_tf(self, ids: Any) -> NoReturn:
        raise NotImplementedError("this vocabulary encodes only")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenizerVocabulary) and other.tokenizer.fingerprint == self.tokenizer.fingerprint

    def __hash__(self) -> int:
        return hash(self.tokenizer.fingerprint)


def instruction_task(examples: Sequence[Example], tokenizer: Tokenizer) -> seqio.Task:
    """The Task over `examples`, in their order, with features tokens [n] int32 and weights [n] float32.

    tokens are prompt + response + eos; weights are 1 where a token is to be predicted: response and eos. Prompt and
    response are tokenised apart, so that the border between them, and with it the weights, is exact.

    Source: nlpxucan/WizardLM @cd4b4cc, WizardCoder/src/train_wizardcoder.py (the response follows the prompt directly).
    """

    def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed
        columns: Any = {key: [getattr(example, key) for example in examples] for key in ("instruction", "input", "output")}
        return tf.data.Dataset.from_tensor_slices(columns)

    return seqio.Task(
        "instructions",
        source=seqio.FunctionDataSource(dataset_fn, splits=["train"], num_input_examples={"train": len(examples)}),
        preprocessors=[tokenise_examples],
        output_features={
            "tokens": seqio.Feature(TokenizerVocabulary(tokenizer), add_eos=True, dtype=tf.int32),
            "weights": seqio.Feature(seqio.PassThroughVocabulary(2), add_eos=False, dtype=tf.float32),
        },
        shuffle_buffer_size=None,
    )


def tokenise_examples(dataset: tf.data.Dataset, output_features: Mapping[str, Any]) -> tf.data.Dataset:
    """Preprocessor: {"instruction", "input", "output"} to {"tokens" [n], "weights" [n]}, untrimmed."""
    vocabulary = output_features["tokens"].vocabulary

    def sequences(instructions: Any, inputs: Any, outputs: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens: list[int] = []
        lengths: list[tuple[int, int]] = []
        for instruction, extra_input, output in zip(instructions, inputs, outputs, strict=True):
            prompt = prompts.wizardcoder(prompts.with_input(instruction.decode(), extra_input.decode()))
            prompt_ids = vocabulary.encode(prompt)
            response_ids = [*vocabulary.encode(output.decode()), vocabulary.eos_id]
            tokens += [*prompt_ids, *response_ids]
            lengths.append((len(prompt_ids), len(response_ids)))
        spans = np.asarray(lengths, np.int64)
        weights = np.repeat(np.tile(np.asarray([0, 1], np.float32), len(spans)), spans.reshape(-1))
        return np.asarray(tokens, np.int32), weights, spans.sum(axis=1)

    def convert(batch: Mapping[str, Any]) -> dict[str, Any]:
        texts = [batch[key] for key in ("instruction", "input", "output")]
        flat = tf.numpy_function(sequences, texts, [tf.int32, tf.float32, tf.int64])
        tokens, weights, lengths = (tf.ensure_shape(part, [None]) for part in flat)
        from_lengths = tf.RaggedTensor.from_row_lengths  # pyright: ignore[reportAttributeAccessIssue]
        return {"tokens": from_lengths(tokens, lengths), "weights": from_lengths(weights, lengths)}

    return dataset.batch(EXAMPLES_PER_CALL).map(convert).unbatch()


def tokenise(examples: Sequence[Example], tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (tokens [n] int32, weights [n] float32) of each example, in order, through the Task."""
    tf.config.set_visible_devices([], "GPU")  # the accelerator's memory is JAX's
    dataset = instruction_task(examples, tokenizer).get_dataset(split="train", shuffle=False)
    for features in dataset.as_numpy_iterator():
        yield features["tokens"], features["weights"]
