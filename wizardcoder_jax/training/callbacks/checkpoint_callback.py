"""Checkpoints of a training run: when they are written, and the items they consist of."""

from collections.abc import Callable
from typing import Any

from wizardcoder_jax.checkpoints.manager import CheckpointManager
from wizardcoder_jax.checkpoints.metadata import CheckpointCard
from wizardcoder_jax.training.callbacks.callback import Callback
from wizardcoder_jax.training.callbacks.metrics_callback import MetricsCallback
from wizardcoder_jax.training.goodput import Stopwatch
from wizardcoder_jax.training.train_step import StepMetrics, TrainState


class CheckpointCallback(Callback):
    """Saves the state every `every_steps` steps, whenever `is_also_due`, and at the end.

    The metrics of all steps are written first, so that metrics.jsonl never lacks steps that a checkpoint contains.

    Args:
        checkpoints: of the run.
        card: the model's metadata.
        every_steps: steps between checkpoints.
        is_also_due: returns whether the state after a step must be saved for another reason, such as an evaluation.
        metrics: of the run.
        clock: of this process.
    """

    def __init__(
        self,
        checkpoints: CheckpointManager,
        card: CheckpointCard,
        every_steps: int,
        is_also_due: Callable[[int], bool],
        metrics: MetricsCallback,
        clock: Stopwatch,
    ) -> None:
        self._checkpoints, self._card, self._every_steps, self._is_also_due = checkpoints, card, every_steps, is_also_due
        self._metrics, self._clock, self._start = metrics, clock, 0

    def on_start(self, step: int, state: TrainState) -> None:
        """Remember the restored step, which is saved already."""
        self._start = step

    def after_step(self, step: int, state: TrainState, metrics: StepMetrics) -> None:
        """Save the state if it is due; writing continues in the background."""
        if step % self._every_steps == 0 or self._is_also_due(step):
            self._save(step, state)

    def on_end(self, step: int, state: TrainState) -> None:
        """Save the last state and wait until all checkpoints are durable."""
        if step > self._start:
            self._save(step, state)
        self.wait()

    def wait(self) -> None:
        """Return once all checkpoints are durable."""
        with self._clock.phase("checkpoint"):
            self._checkpoints.wait()

    def _save(self, step: int, state: TrainState) -> None:
        with self._clock.phase("step"):
            self._metrics.flush()
        with self._clock.phase("checkpoint"):
            self._checkpoints.save(step, self._card, checkpoint_items(state))


def checkpoint_items(state: TrainState) -> dict[str, Any]:
    """Return the items of a checkpoint that hold `state`. Their names are those of the folders on disk."""
    items = {"params": state.trained, "frozen": state.frozen or None, "ema": state.ema}
    return {**items, "optimizer": {"optimizer": state.opt_state, "guard": state.skip_step}}


def state_from_items(items: dict[str, Any]) -> TrainState:
    """Return the state that the items of a checkpoint hold."""
    optimizer = items["optimizer"]
    return TrainState(items["params"], items["frozen"] or {}, optimizer["optimizer"], items["ema"], optimizer["guard"])
