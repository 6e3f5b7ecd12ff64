"""Batches as a pure function of the step: random access to any step, identical for any number of hosts."""

import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.data.packed_dataset import Dataset

Positions = slice | np.ndarray  # of rows within a batch
ALL = slice(None)


class Batches:
    """The rows of a dataset, epoch after epoch, each epoch in a new random order.

    Index p = step * batch_size + i belongs to epoch p // R and is row permutation(seed, epoch)[p % R]. A batch may contain the
    end of one epoch and the start of the next, so each row occurs exactly once per epoch.

    Averaging is in the weights of a batch, so that a step's loss is the plain sum of weight * cross-entropy, however the batch
    is split over microbatches, devices and hosts. Each `group` of consecutive sequences has a mean over its supervised tokens,
    and the step's loss is the mean of these means. With a single group (objective token_mean) every token has the same weight;
    with several (objective original, where a group is what one device processes at a time) tokens of long answers have less.

    Source of the mean of means: nlpxucan/WizardLM, WizardCoder/src/train_wizardcoder.py, with transformers 4.29: the model
    averages over the labels of a microbatch, Trainer and DeepSpeed over microbatches and devices.

    Args:
        dataset: R rows, R >= 1.
        batch_size: rows per step, over all hosts.
        seed: of the order.
        group: sequences that share a mean; by default all of a step.

    Raises:
        InputError: the seed is negative, or batch size or group are not positive, or the group does not divide the batch.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, group: int | None = None) -> None:
        if seed < 0:
            raise InputError(f"seed must be >= 0, got {seed}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self._group = batch_size if group is None else group
        if self._group < 1 or batch_size % self._group:
            raise InputError(f"batch_size {batch_size} does not divide into loss groups of {group} sequences")
        self.dataset = dataset
        self.batch_size = batch_size
        self._seed = seed
        self._orders: dict[int, np.ndarray] = {}  # of the epochs that the last batch belongs to

    def rows(self, step: int) -> np.ndarray:
        """Return the dataset rows of batch `step`, int64 [batch_size]."""
        indices = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epochs, positions = np.divmod(indices, self.dataset.num_rows)
        needed = np.unique(epochs).tolist()
        self._orders = {epoch: self._orders[epoch] if epoch in self._orders else self._order(epoch) for epoch in needed}
        rows = np.empty_like(indices)
        for epoch in needed:
            rows[epochs == epoch] = self._orders[epoch][positions[epochs == epoch]]
        return rows

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(self.dataset.num_rows)

    def batch(self, step: int, positions: Positions = ALL) -> dict[str, np.ndarray]:
        """Return the rows at `positions` of batch `step`; a host reads only its own.

        Returns:
            tokens, targets, segment_ids, positions (int32) and weights (float32), each [len(positions), T], and seeds (uint32
            [len(positions)]), the source of all randomness of a row, which depends only on the run's seed, the step and the
            position.

        Raises:
            InputError: a group has no supervised token.
        """
        rows = self.rows(step)
        features = self.dataset.features(rows[positions])
        features["weights"] = features["weights"] * self._token_weights(step, rows)[positions, None]
        seeds = np.random.SeedSequence((self._seed, step)).generate_state(self.batch_size)[positions]
        return {**features, "seeds": seeds}

    def _token_weights(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Return the weight of a supervised token in each row, float32 [batch_size]."""
        supervised = self.dataset.rows.num_supervised[rows].reshape(-1, self._group).sum(axis=1)
        if not supervised.all():
            group = int(np.argmin(supervised))
            raise InputError(self._describe_unsupervised(step, group, rows.reshape(-1, self._group)[group]))
        return np.repeat(1 / (supervised * len(supervised)), self._group).astype(np.float32)

    def _describe_unsupervised(self, step: int, group: int, rows: np.ndarray) -> str:
        ids = ", ".join(map(str, np.concatenate([self.dataset.examples_in(row) for row in rows.tolist()])[:8].tolist()))
        is_whole_batch = self._group == self.batch_size
        where = "" if is_whole_batch else f"sequences {group * self._group} to {(group + 1) * self._group - 1} of "
        larger = "--batch-size" if is_whole_batch else "--loss-group"
        return (
            f"{where}step {step} (examples {ids} ...) have no supervised token, so their loss has no mean: "
            f"raise --max-length or {larger}, or remove examples whose prompt fills max_length"
        )

    def check_supervision(self, start: int, stop: int) -> None:
        """Check before training that `batch` will not raise for steps `start` to `stop`.

        Raises:
            InputError: a group has no supervised token.
        """
        for step in range(start, stop):
            self._token_weights(step, self.rows(step))

    def token_counts(self, step: int) -> tuple[int, int]:
        """Return the tokens and the supervised tokens of the whole batch `step`, over all hosts."""
        rows = self.rows(step)
        return int(self.dataset.rows.num_tokens[rows].sum()), int(self.dataset.rows.num_supervised[rows].sum())

    def example_ids(self, step: int) -> np.ndarray:
        """Return the ids of all examples that batch `step` consumes, row after row; each occurs once per epoch."""
        return np.concatenate([self.dataset.examples_in(row) for row in self.rows(step).tolist()])


class ValidationBatches:
    """One pass over the rows of a dataset, in their order, for the validation loss.

    The weights add up to 1 over the whole pass: the mean over all supervised tokens is the plain sum of the batches' losses.
    The last batch is padded with empty rows.

    Args:
        dataset: R rows.
        batch_size: rows per batch, over all hosts.
    """

    def __init__(self, dataset: Dataset, batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_batches = -(-dataset.num_rows // batch_size)

    def batch(self, index: int, positions: Positions = ALL) -> dict[str, np.ndarray]:
        """Return the rows at `positions` of batch `index`, in the form of `Batches.batch`; all seeds are 0."""
        rows = (index * self.batch_size + np.arange(self.batch_size))[positions]
        exists = rows < self.dataset.num_rows
        features = self.dataset.features(rows[exists])
        features["weights"] = features["weights"] / np.float32(self.dataset.counts.supervised_tokens)
        padded = {name: np.zeros((len(rows), self.dataset.width), array.dtype) for name, array in features.items()}
        for name, array in features.items():
            padded[name][exists] = array
        return {**padded, "seeds": np.zeros(len(rows), np.uint32)}
