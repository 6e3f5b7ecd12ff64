"""The loss on records held out: the token mean over all of their supervised tokens."""

from collections.abc import Callable
from typing import Protocol

import jax
import numpy as np

from wizardcoder_jax.training.global_batch import Rows
from wizardcoder_jax.training.objectives.cross_entropy import Batch, LossOptions, weighted_loss
from wizardcoder_jax.training.trainable import Params, Partition


class HeldOut(Protocol):
    """Rows to go through once, in batches whose weights add up to 1 over all of them (data/batches.py, Sweep)."""

    num_batches: int
    batch_size: int

    def batch(self, index: int, places: np.ndarray) -> Rows:
        """The rows of batch `index` at `places`."""
        ...


class Validation:
    """Goes through held-out rows in their own order, without dropout or anything else that is of training.

    Args:
        held_out: the rows.
        put: batch rows on the devices, as [1, B, ...].
        partition: of the model's weights.
        options: those of training.
        unroll: as for the step.
    """

    def __init__(
        self,
        held_out: HeldOut,
        put: Callable[[Callable[[np.ndarray], Rows]], Batch],
        partition: Partition,
        options: LossOptions,
        unroll: bool,
    ) -> None:
        self._held_out, self._put = held_out, put

        def loss(trained: Params, frozen: Params, batch: Batch) -> jax.Array:
            model = partition.join(trained, frozen)
            microbatch = jax.tree.map(lambda array: array[0], batch)
            return weighted_loss(model.unstack_layers() if unroll else model, microbatch, options.plain())

        self._loss = jax.jit(loss)

    def loss(self, trained: Params, frozen: Params) -> float:
        """The mean over all supervised tokens; several processes call this together."""
        total = 0.0
        for index in range(self._held_out.num_batches):
            batch = self._put(lambda places, index=index: self._held_out.batch(index, places))
            total += float(self._loss(trained, frozen, batch))
        return total
