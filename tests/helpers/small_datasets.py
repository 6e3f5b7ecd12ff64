"""Builds datasets in memory, without a tokenizer or a cache."""

import dataclasses

import numpy as np

from wizardcoder_jax.data.packed_dataset import Dataset, EpochCounts, build_rows, build_token_store


@dataclasses.dataclass(frozen=True)
class Sample:
    """The token ids and the loss mask of an example."""

    example_id: int
    tokens: np.ndarray
    loss_mask: np.ndarray


def dataset_of(samples, max_length, packs=True, vocab_size=1 << 20):
    """Return the dataset of the samples, built with the functions that `prepare_data` uses."""
    samples = list(samples)
    store = build_token_store([s.tokens for s in samples], [s.loss_mask for s in samples], vocab_size)
    supervised = np.asarray([np.count_nonzero(s.loss_mask[1:]) for s in samples])
    ids = np.asarray([s.example_id for s in samples])
    rows, width = build_rows(store, supervised, np.arange(len(samples)), ids, max_length, packs)
    num_tokens = int(rows.num_tokens.sum())
    counts = EpochCounts(
        examples=len(samples),
        dropped=0,
        truncated=0,
        items=len(samples),
        rows=len(rows.num_tokens),
        tokens=num_tokens,
        supervised_tokens=int(supervised.sum()),
        fill=num_tokens / (len(rows.num_tokens) * width),
    )
    return Dataset(store=store, rows=rows, width=width, counts=counts)


def random_samples(num_examples, max_length, seed=0):
    """Return samples of 2 to max_length random tokens with random loss masks; example ids have gaps, as after drops."""
    rng = np.random.default_rng(seed)
    for i in range(num_examples):
        n = int(rng.integers(2, max_length + 1))
        yield Sample(3 * i, rng.integers(0, 4, n), rng.integers(0, 2, n).astype(bool))
