"""The loss on records held out: the token mean over all of their supervised tokens."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from wizardcoder_jax.model.transformer import Transformer
from wizardcoder_jax.sharding import Rules
from wizardcoder_jax.training.loss import Batch
from wizardcoder_jax.training.step import put_batch

BatchLoss = Callable[[Transformer, Batch], jax.Array]  # the weighted sum of a microbatch [B, T]


class Validation:
    """Goes through held-out rows in their own order.

    Args:
        rows: tokens, targets, weights, segment_ids, positions, [R, T] each; weights are not scaled.
        batch_size: rows computed at once.
        batch_loss: the sum of weight * cross-entropy, without dropout or anything else that is of training.
        mesh: that of the training.
        rules: its strategy.
    """

    def __init__(
        self, rows: Mapping[str, np.ndarray], batch_size: int, batch_loss: BatchLoss, mesh: Mesh, rules: Rules
    ) -> None:
        self._rows, self._batch_size, self._mesh, self._rules = rows, batch_size, mesh, rules
        self._num_tokens = float(rows["weights"].sum(dtype=np.float64))
        self._loss = jax.jit(lambda model, batch: batch_loss(model, jax.tree.map(lambda array: array[0], batch)))

    def loss(self, model: Transformer, should_stop: Callable[[], bool]) -> float | None:
        """The mean over all supervised tokens; None where it was asked to stop, which is looked at before each batch.

        Several processes call this together, and `should_stop` gives all of them the same answer.
        """
        total = 0.0
        for batch in self._batches():
            if should_stop():
                return None
            total += float(self._loss(model, batch))
        return total / max(self._num_tokens, 1.0)

    def _batches(self) -> Iterator[Batch]:
        num_rows = len(self._rows["weights"])
        for start in range(0, num_rows, self._batch_size):
            cut: dict[str, Any] = {
                name: np.asarray(array[start : start + self._batch_size]) for name, array in self._rows.items()
            }
            missing = self._batch_size - len(cut["weights"])
            # Rows of padding, whose weights are zero, fill the last batch: one compiled program serves all.
            padded = {name: np.pad(array, ((0, missing), (0, 0))) for name, array in cut.items()}
            padded["seeds"] = np.zeros(self._batch_size, np.uint32)
            yield put_batch(padded, 1, self._mesh, self._rules)
