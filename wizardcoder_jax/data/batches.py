"""Batches as a pure function of the step: any step at once, the same on every number of hosts."""

import numpy as np

from wizardcoder_jax.data.packing import PackedRows
from wizardcoder_jax.errors import InputError

FEATURES = ("tokens", "targets", "weights", "segment_ids", "positions")


class Batches:
    """The rows of a dataset, epoch after epoch, each epoch in an order of its own.

    Item p = step * batch_size + i belongs to epoch p // R and is row permutation(seed, epoch)[p % R]. A batch may hold the
    end of one epoch and the start of the next, so each row comes exactly once an epoch.

    Args:
        dataset: R rows, R >= 1.
        batch_size: rows a step, over all hosts.
        seed: of the order.

    Raises:
        InputError: the seed is negative or the batch size not positive.
    """

    def __init__(self, dataset: PackedRows, batch_size: int, seed: int) -> None:
        if seed < 0:
            raise InputError(f"seed must be >= 0, got {seed}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
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

    def batch(self, step: int, start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Rows start..stop of batch `step`: a host reads its own slice only.

        Returns:
            tokens, targets, segment_ids, positions (int32) and weights (float32), each [stop - start, T], and seeds (uint32),
            [stop - start]: all randomness of a row.
        """
        rows = self.rows(step)[start:stop]
        seeds = np.random.SeedSequence((self._seed, step)).generate_state(self.batch_size)[start:stop]
        arrays: dict[str, np.ndarray] = {name: getattr(self.dataset, name)[rows] for name in FEATURES}
        arrays["weights"] = arrays["weights"] / max(self.dataset.weights[self.rows(step)].sum(), 1)
        return {**arrays, "seeds": seeds}
