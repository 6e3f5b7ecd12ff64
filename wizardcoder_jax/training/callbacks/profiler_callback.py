"""Writes a trace of a few steps to RUN/profile, for TensorBoard's profiler."""

import os

import jax

from wizardcoder_jax.training.callbacks.callback import Callback
from wizardcoder_jax.training.train_step import StepMetrics, TrainState


class ProfilerCallback(Callback):
    """Traces steps `first` to `first + num_steps - 1`. A run that resumes after step `first` traces nothing.

    Args:
        run_dir: the run's folder.
        first: the first step to trace, counted from 1; None disables tracing.
        num_steps: number of steps to trace.
    """

    def __init__(self, run_dir: str, first: int | None, num_steps: int) -> None:
        self._dir, self._first, self._num_steps = os.path.join(run_dir, "profile"), first, num_steps
        self._is_tracing = False

    def before_step(self, step: int) -> None:
        """Start the trace if `step` is the first step to trace."""
        if step == self._first:
            jax.profiler.start_trace(self._dir)
            self._is_tracing = True

    def after_step(self, step: int, state: TrainState, metrics: StepMetrics) -> None:
        """Stop the trace once the devices have finished the last step to trace."""
        if self._is_tracing and self._first is not None and step >= self._first + self._num_steps - 1:
            jax.block_until_ready(metrics)
            self._stop()

    def on_end(self, step: int, state: TrainState) -> None:
        """Stop the trace if the run ends before the last step to trace."""
        self._stop()

    def _stop(self) -> None:
        if self._is_tracing:
            self._is_tracing = False
            jax.profiler.stop_trace()
