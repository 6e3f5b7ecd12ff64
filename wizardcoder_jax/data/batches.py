"""Computes the batch of any training step from the step number alone, with the same result for any number of hosts."""

import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.data.packed_dataset import Dataset

Positions = slice | np.ndarray  # indices of rows within a batch
ALL = slice(None)


class Batches:
    """Training batches: the rows of a dataset, epoch after epoch, in a new random order in each epoch.

    Row i of the batch of a step has the index p = step * batch_size + i. It belongs to epoch p // R and is the dataset's row
    permutation(seed, epoch)[p % R]. A batch may contain the end of one epoch and the start of the next, so each row occurs
    exactly once per epoch.

    The weights of a batch contain the averaging, so the loss of a step is the plain sum of weight * cross-entropy, however the
    batch is split over microbatches, devices and hosts. The loss is a mean of means: it is averaged over the supervised tokens
    of each group of `group` consecutive sequences, then over groups. With one group (objective token_mean), all tokens have the
    same weight. With several groups (objective original: the sequences that a device processes at a time), tokens of long
    responses have less weight.

    Source of the mean of means: nlpxucan/WizardLM, WizardCoder/src/train_wizardcoder.py, with transformers 4.29: the model
    averages over the labels of a microbatch, Trainer and DeepSpeed over microbatches and devices.

    Args:
        dataset: the dataset, with R >= 1 rows.
        batch_size: number of rows per step, over all hosts.
        seed: the seed of the random order and of the seeds in each batch.
        group: number of consecutive sequences per group; by default, the whole batch is one group.

    Raises:
        InputError: the seed is negative, batch_size or group is not positive, or group does not divide batch_size.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, group: int | None = None) -> None:
        if seed < 0:
            raise InputError(f"seed must be >= 0, got {seed}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self._group = batch_size if group is None else group
        if self._group < 1 or batch_size % self._group:
            raise InputError(f"batch_size {batch_size} must be a positive multiple of the loss group size {group}")
        self.dataset = dataset
        self.batch_size = batch_size
        self._seed = seed
        self._orders: dict[int, np.ndarray] = {}  # order of the rows in the epochs of the last batch

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
        """Return the rows at `positions` of the batch of `step`; each host reads only the rows that its devices need.

        Returns:
            tokens, targets, segment_ids and positions (int32) and weights (float32), each [len(positions), T]; and seeds
            (uint32 [len(positions)]), from which all random numbers of a row are drawn. A seed depends only on the run's seed,
            the step and the row's position in the batch.

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
            f"{where}step {step} (examples {ids} ...) have no supervised token, so the mean loss is undefined; "
            f"raise --max-length or {larger}, or remove examples whose prompt fills max_length"
        )

    def check_supervision(self, start: int, stop: int) -> None:
        """Check before training that each group in the batches of steps `start` to `stop` - 1 has a supervised token.

        Raises:
            InputError: a group has no supervised token.
        """
        for step in range(start, stop):
            self._token_weights(step, self.rows(step))

    def token_counts(self, step: int) -> tuple[int, int]:
        """Return the numbers of tokens and supervised tokens in the batch of `step`, over all hosts."""
        rows = self.rows(step)
        return int(self.dataset.rows.num_tokens[rows].sum()), int(self.dataset.rows.num_supervised[rows].sum())

    def example_ids(self, step: int) -> np.ndarray:
        """Return the ids of all examples in the batch of `step`, row after row; each id occurs once per epoch."""
        return np.concatenate([self.dataset.examples_in(row) for row in self.rows(step).tolist()])


class ValidationBatches:
    """Validation batches: one pass over the rows of a dataset, in a fixed order.

    The weights sum to 1 over all batches, so the sum of the batches' losses is the mean over all supervised tokens. The last
    batch is padded with empty rows.

    Args:
        dataset: the dataset.
        batch_size: number of rows per batch, over all hosts.
    """

    def __init__(self, dataset: Dataset, batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_batches = -(-dataset.num_rows // batch_size)

    def batch(self, index: int, positions: Positions = ALL) -> dict[str, np.ndarray]:
        """Return the rows at `positions` of batch `index`, in the same format as `Batches.batch`; all seeds are 0."""
        rows = (index * self.batch_size + np.arange(self.batch_size))[positions]
        exists = rows < self.dataset.num_rows
        features = self.dataset.features(rows[exists])
        features["weights"] = features["weights"] / np.float32(self.dataset.counts.supervised_tokens)
        padded = {name: np.zeros((len(rows), self.dataset.width), array.dtype) for name, array in features.items()}
        for name, array in features.items():
            padded[name][exists] = array
        return {**padded, "seeds": np.zeros(len(rows), np.uint32)}
