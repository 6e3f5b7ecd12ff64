"""Saves checkpoints during training, and converts between the training state and the items of a checkpoint."""

from collections.abc import Callable
from typing import Any

from wizardcoder_jax.checkpoints.manager import CheckpointManager
from wizardcoder_jax.checkpoints.metadata import CheckpointCard
from wizardcoder_jax.training.callbacks.callback import Callback
from wizardcoder_jax.training.callbacks.metrics_callback import MetricsCallback
from wizardcoder_jax.training.goodput import Stopwatch
from wizardcoder_jax.training.train_step import StepMetrics, TrainState


class CheckpointCallback(Callback):
    """Saves the state every `every_steps` steps, after steps for which `is_also_due` returns True, and at the end.

    Before each checkpoint, the metrics of all steps so far are written, so that metrics.jsonl is complete up to any checkpoint.

    Args:
        checkpoints: writes the run's checkpoints.
        card: the model's metadata.
        every_steps: number of steps between checkpoints.
        is_also_due: returns whether the state after a step must be saved for another reason, such as an evaluation.
        metrics: writes the run's metrics.
        clock: the stopwatch of this process.
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
        """Remember the restored step, so that it is not saved again."""
        self._start = step

    def after_step(self, step: int, state: TrainState, metrics: StepMetrics) -> None:
        """Save the state if a checkpoint is due; writing continues in the background."""
        if step % self._every_steps == 0 or self._is_also_due(step):
            self._save(step, state)

    def on_end(self, step: int, state: TrainState) -> None:
        """Save the last state and wait until all checkpoints are durable."""
        if step > self._start:
            self._save(step, state)
        self.wait()

    def wait(self) -> None:
        """Wait until all checkpoints are durable."""
        with self._clock.phase("checkpoint"):
            self._checkpoints.wait()

    def _save(self, step: int, state: TrainState) -> None:
        with self._clock.phase("step"):
            self._metrics.flush()
        with self._clock.phase("checkpoint"):
            self._checkpoints.save(step, self._card, checkpoint_items(state))


def checkpoint_items(state: TrainState) -> dict[str, Any]:
    """Return `state` as the items of a checkpoint. The keys are also the folder names on disk."""
    items = {"params": state.trained, "frozen": state.frozen or None, "ema": state.ema}
    return {**items, "optimizer": {"optimizer": state.opt_state, "guard": state.skip_step}}


def state_from_items(items: dict[str, Any]) -> TrainState:
    """Return the training state stored in the items of a checkpoint."""
    optimizer = items["optimizer"]
    return TrainState(items["params"], items["frozen"] or {}, optimizer["optimizer"], items["ema"], optimizer["guard"])
