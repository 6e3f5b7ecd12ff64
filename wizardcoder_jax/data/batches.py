"""Batches as a pure function of the step: any step at once, the same on every number of hosts."""

import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.data.packed_dataset import Dataset

Places = slice | np.ndarray  # of rows within a batch
ALL = slice(None)


class Batches:
    """The rows of a dataset, epoch after epoch, each epoch in an order of its own.

    Item p = step * batch_size + i belongs to epoch p // R and is row permutation(seed, epoch)[p % R]. A batch may hold the
    end of one epoch and the start of the next, so each row comes exactly once an epoch.

    The weights of a batch carry the averaging, so that a step's loss is the plain sum of weight * cross-entropy however the
    batch is split over microbatches, devices and hosts. Each `group` of consecutive sequences has a mean over its supervised
    tokens, and the step's loss is the mean of these means. With one group (objective token_mean) every token counts alike;
    with several (objective original, a group being what one device sees at a time) those of long answers count less.

    Source of the mean of means: nlpxucan/WizardLM, WizardCoder/src/train_wizardcoder.py, by way of transformers 4.29: the
    model averages over the labels of a micro-batch, Trainer and DeepSpeed over micro-batches and devices.

    Args:
        dataset: R rows, R >= 1.
        batch_size: rows a step, over all hosts.
        seed: of the order.
        group: rows of one mean; by default all of a step.

    Raises:
        InputError: the seed is negative, or batch size or group are not positive or do not divide.
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
        self._orders: dict[int, np.ndarray] = {}  # of the epochs the last batch touched

    def rows(self, step: int) -> np.ndarray:
        """The dataset rows of batch `step`, [batch_size] int64."""
        items = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epochs, places = np.divmod(items, self.dataset.num_rows)
        touched = np.unique(epochs).tolist()
        self._orders = {epoch: self._orders[epoch] if epoch in self._orders else self._order(epoch) for epoch in touched}
        rows = np.empty_like(items)
        for epoch in touched:
            rows[epochs == epoch] = self._orders[epoch][places[epochs == epoch]]
        return rows

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(self.dataset.num_rows)

    def batch(self, step: int, places: Places = ALL) -> dict[str, np.ndarray]:
        """The rows of batch `step` at `places`: a host reads its own only.

        Returns:
            tokens, targets, segment_ids, positions (int32) and weights (float32), each [len(places), T], and seeds (uint32),
            [len(places)]: all randomness of a row, given by the run's seed, the step and the place alone.

        Raises:
            InputError: a group has no supervised token.
        """
        rows = self.rows(step)
        features = self.dataset.features(rows[places])
        features["weights"] = features["weights"] * self._scales(step, rows)[places, None]
        seeds = np.random.SeedSequence((self._seed, step)).generate_state(self.batch_size)[places]
        return {**features, "seeds": seeds}

    def _scales(self, step: int, rows: np.ndarray) -> np.ndarray:
        """[batch_size] float32: the weight of a supervised token of each row."""
        supervised = self.dataset.rows.num_supervised[rows].reshape(-1, self._group).sum(axis=1)
        if not supervised.all():
            group = int(np.argmin(supervised))
            raise InputError(self._nothing_to_learn(step, group, rows.reshape(-1, self._group)[group]))
        return np.repeat(1 / (supervised * len(supervised)), self._group).astype(np.float32)

    def _nothing_to_learn(self, step: int, group: int, rows: np.ndarray) -> str:
        ids = ", ".join(map(str, np.concatenate([self.dataset.examples_in(row) for row in rows.tolist()])[:8].tolist()))
        whole = self._group == self.batch_size
        where = "" if whole else f"sequences {group * self._group} to {(group + 1) * self._group - 1} of "
        larger = "--batch-size" if whole else "--loss-group"
        return (
            f"{where}step {step} (examples {ids} ...) have no supervised token, so their loss has no mean: "
            f"raise --max-length or {larger}, or remove examples whose prompt fills max_length"
        )

    def check_supervision(self, start: int, stop: int) -> None:
        """Finds out before training what `batch` would refuse in steps `start` to `stop`.

        Raises:
            InputError: a group has no supervised token.
        """
        for step in range(start, stop):
            self._scales(step, self.rows(step))

    def token_counts(self, step: int) -> tuple[int, int]:
        """Tokens and supervised tokens of the whole batch `step`, over all hosts."""
        rows = self.rows(step)
        return int(self.dataset.rows.num_tokens[rows].sum()), int(self.dataset.rows.num_supervised[rows].sum())

    def example_ids(self, step: int) -> np.ndarray:
        """The ids of all that batch `step` consumes, row after row; in an epoch each comes once."""
        return np.concatenate([self.dataset.examples_in(row) for row in self.rows(step).tolist()])


class ValidationBatches:
    """The rows of a dataset once, in their order: for the validation loss.

    The weights add up to 1 over the whole sweep: the mean over all supervised tokens is the plain sum of the batches' losses.
    The last batch is filled up with empty rows.

    Args:
        dataset: R rows.
        batch_size: rows a batch, over all hosts.
    """

    def __init__(self, dataset: Dataset, batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_batches = -(-dataset.num_rows // batch_size)

    def batch(self, index: int, places: Places = ALL) -> dict[str, np.ndarray]:
        """The rows of batch `index` at `places`; returns what `Batches.batch` does, all seeds 0."""
        rows = (index * self.batch_size + np.arange(self.batch_size))[places]
        there = rows < self.dataset.num_rows
        features = self.dataset.features(rows[there])
        features["weights"] = features["weights"] / np.float32(self.dataset.counts.supervised_tokens)
        filled = {name: np.zeros((len(rows), self.dataset.width), array.dtype) for name, array in features.items()}
        for name, array in features.items():
            filled[name][there] = array
        return {**filled, "seeds": np.zeros(len(rows), np.uint32)}
