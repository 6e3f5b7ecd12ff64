"""The validation loss: the mean cross-entropy over all supervised tokens of the held-out records."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.data.batches import ValidationBatches
from wizardcoder_jax.data.packed_dataset import Dataset
from wizardcoder_jax.training.global_batch import Rows, put_batch
from wizardcoder_jax.training.objectives.objective import LossOptions, Objective
from wizardcoder_jax.training.objectives.objective_registry import OBJECTIVES
from wizardcoder_jax.training.setup import TrainingSetup
from wizardcoder_jax.training.trainable import Params, Partition


class HeldOutBatches(Protocol):
    """The interface of one pass over held-out rows, whose weights sum to 1 over all batches; see data/batches.py."""

    num_batches: int
    batch_size: int

    def batch(self, index: int, positions: np.ndarray, /) -> Rows:
        """Return the rows at `positions` of batch `index`."""
        ...


class ValidationLoss:
    """Computes the loss on held-out rows, in a fixed order and without dropout, noise or other regularization.

    Args:
        held_out: the batches of held-out rows.
        put: copies a batch of rows to the devices, as arrays [1, B, ...].
        partition: the trained and the frozen weights.
        objective: the training objective.
        options: the training options, from which regularization is removed.
        unroll: whether to unroll the loop over the blocks; see `make_step`.
    """

    name = "validation_loss"

    def __init__(
        self,
        held_out: HeldOutBatches,
        put: Callable[[Callable[[np.ndarray], Rows]], Any],
        partition: Partition,
        objective: Objective,
        options: LossOptions,
        unroll: bool,
    ) -> None:
        self._held_out, self._put = held_out, put

        def loss(trained: Params, frozen: Params, batch: Any) -> jax.Array:
            model = partition.join(trained, frozen)
            microbatch = jax.tree.map(lambda array: array[0], batch)
            return objective.loss(model.unstack_layers() if unroll else model, microbatch, options.without_regularization())[0]

        self._loss = jax.jit(loss)

    @classmethod
    def from_setup(cls, config: TrainConfig, setup: TrainingSetup, data: Dataset) -> "ValidationLoss":
        """Return the evaluator for a run; its batches have the size of the run's microbatches."""
        objective = OBJECTIVES[config.objective]
        batches = ValidationBatches(data, config.batch_size // config.accumulation)
        put = functools.partial(
            put_batch,
            batch_size=batches.batch_size,
            accumulation=1,
            mesh=setup.mesh,
            rules=setup.rules,
            batch_type=objective.batch_type,
        )
        unroll = jax.default_backend() == "cpu"
        return cls(batches, put, setup.partition, objective, LossOptions.from_config(config), unroll)

    def evaluate(self, step: int, trained: Params, frozen: Params, metrics: object = None) -> float:
        """Return the mean loss over all supervised tokens. All processes of the run must call this together."""
        del step, metrics
        total = 0.0
        for index in range(self._held_out.num_batches):
            batch = self._put(lambda positions, index=index: self._held_out.batch(index, positions))
            total += float(self._loss(trained, frozen, batch))
        return total
