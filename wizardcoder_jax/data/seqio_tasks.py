"""The seqio Task that tokenizes instructions. Importing this module imports seqio and TensorFlow (more than 10 s, 870 MB).

The Task builds prompts, tokens and loss masks. seqio's packing is not used: it treats id 0 as padding and keeps the first
count(value != 0) entries of a sequence (seqio 0.0.20, utils.py, _pack_with_tf_ops), which cuts off the end of every sequence
that contains id 0, StarCoder's <|endoftext|>.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import seqio
import tensorflow as tf

from wizardcoder_jax.core.instruction_template import with_input, wizardcoder_prompt
from wizardcoder_jax.data.instruction_records import Example
from wizardcoder_jax.data.tokenization import TOKENIZATIONS, TokenizedExample
from wizardcoder_jax.data.tokenizer_protocol import TokenizerProtocol

# Number of examples per call from TensorFlow into Python: for a single example, the call takes longer than tokenizing it.
EXAMPLES_PER_CALL = 256


class TokenizerVocabulary(seqio.Vocabulary):
    """Wraps a tokenizer as a seqio vocabulary that can only encode."""

    def __init__(self, tokenizer: TokenizerProtocol) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    @property
    def eos_id(self) -> int:
        """Return the id of the token that ends a response."""
        return self.tokenizer.eos_id

    @property
    def unk_id(self) -> None:
        """Return None, because byte-level tokenizers have no unknown token."""
        return None

    @property
    def _base_vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def _encode(self, s: str) -> list[int]:
        return list(self.tokenizer.encode_batch([s])[0])

    def _encode_tf(self, s: Any) -> Any:
        def ids(text: Any) -> np.ndarray:
            # `text` is bytes in graph mode and a 0-d array in eager mode. NumPy's string dtypes would drop trailing NULs.
            return np.asarray(self._encode(np.asarray(text, object).item().decode()), np.int32)

        return tf.ensure_shape(tf.numpy_function(ids, [s], tf.int32), [None])

    def _decode(self, ids: Any) -> NoReturn:
        raise NotImplementedError("this vocabulary can encode but not decode")

    def _decode_tf(self, ids: Any) -> NoReturn:
        raise NotImplementedError("this vocabulary can encode but not decode")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenizerVocabulary) and other.tokenizer.fingerprint == self.tokenizer.fingerprint

    def __hash__(self) -> int:
        return hash(self.tokenizer.fingerprint)


def instruction_task(examples: Sequence[Example], tokenizer: TokenizerProtocol, objective: str, max_length: int) -> seqio.Task:
    """Return a Task that yields `examples` in order, with the features tokens [n] int32, loss_mask [n] bool, is_cut [] bool."""

    def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed
        columns: Any = {key: [getattr(example, key) for example in examples] for key in ("instruction", "input", "output")}
        return tf.data.Dataset.from_tensor_slices(columns)

    flags = seqio.PassThroughVocabulary(2)
    return seqio.Task(
        "instructions",
        source=seqio.FunctionDataSource(dataset_fn, splits=["train"], num_input_examples={"train": len(examples)}),
        preprocessors=[functools.partial(tokenize_dataset, objective=objective, max_length=max_length)],
        output_features={
            "tokens": seqio.Feature(TokenizerVocabulary(tokenizer), add_eos=True, dtype=tf.int32),
            "loss_mask": seqio.Feature(flags, add_eos=False, dtype=tf.bool),
            "is_cut": seqio.Feature(flags, add_eos=False, dtype=tf.bool, rank=0),
        },
        shuffle_buffer_size=None,
    )


def tokenize_dataset(
    dataset: tf.data.Dataset, output_features: Mapping[str, Any], *, objective: str, max_length: int
) -> tf.data.Dataset:
    """Map {"instruction", "input", "output"} to {"tokens" [n], "loss_mask" [n], "is_cut" []}, n <= max_length."""
    tokenizer = output_features["tokens"].vocabulary.tokenizer

    def sequences(instructions: Any, inputs: Any, outputs: Any) -> tuple[np.ndarray, ...]:
        pairs = zip(instructions, inputs, strict=True)
        texts = [wizardcoder_prompt(with_input(i.decode(), extra.decode())) for i, extra in pairs]
        found = TOKENIZATIONS[objective].tokenize(texts, [output.decode() for output in outputs], tokenizer, max_length)
        return (
            np.concatenate([example.tokens for example in found]),
            np.concatenate([example.loss_mask for example in found]),
            np.asarray([example.is_cut for example in found]),
            np.asarray([len(example.tokens) for example in found], np.int64),
        )

    def convert(batch: Mapping[str, Any]) -> dict[str, Any]:
        texts = [batch[key] for key in ("instruction", "input", "output")]
        flat = tf.numpy_function(sequences, texts, [tf.int32, tf.bool, tf.bool, tf.int64])
        tokens, loss_mask, is_cut, lengths = (tf.ensure_shape(part, [None]) for part in flat)
        from_lengths = tf.RaggedTensor.from_row_lengths  # pyright: ignore[reportAttributeAccessIssue]
        return {"tokens": from_lengths(tokens, lengths), "loss_mask": from_lengths(loss_mask, lengths), "is_cut": is_cut}

    return dataset.batch(EXAMPLES_PER_CALL).map(convert).unbatch()


def tokenize_instructions(
    examples: Sequence[Example], tokenizer: TokenizerProtocol, objective: str, max_length: int
) -> Iterator[TokenizedExample]:
    """Yield the tokenized examples in order, using the Task of `instruction_task`."""
    tf.config.set_visible_devices([], "GPU")  # so that TensorFlow does not allocate GPU memory
    dataset = instruction_task(examples, tokenizer, objective, max_length).get_dataset(split="train", shuffle=False)
    # Batches again, because iterating over single elements is slow.
    batches: Any = dataset.ragged_batch(EXAMPLES_PER_CALL)
    for batch in batches:
        tokens, loss_mask = batch["tokens"].values.numpy(), batch["loss_mask"].values.numpy()
        starts = batch["tokens"].row_splits.numpy().tolist()
        for i, is_cut in enumerate(batch["is_cut"].numpy().tolist()):
            span = slice(starts[i], starts[i + 1])
            yield TokenizedExample(tokens=tokens[span], loss_mask=loss_mask[span], is_cut=is_cut)
