"""A trace of a few steps, for TensorBoard's profiler, in RUN/profile."""

import os
from typing import Any

import jax


class ProfilerWindow:
    """Traces steps `first` to `first + num_steps - 1`; a run that goes on past the window's start traces nothing.

    Args:
        run_dir: the run's folder.
        first: the first step that is traced, 1 being that of a new run; None traces none.
        num_steps: how many are.
    """

    def __init__(self, run_dir: str, first: int | None, num_steps: int) -> None:
        self._dir, self._first, self._num_steps = os.path.join(run_dir, "profile"), first, num_steps
        self._tracing = False

    def before(self, step: int) -> None:
        """Begins where `step`, which is about to be taken, is the first of the window."""
        if step == self._first:
            jax.profiler.start_trace(self._dir)
            self._tracing = True

    def after(self, step: int, results: Any) -> None:
        """Ends where `step`, which is on its way to `results`, is the last of the window."""
        if self._tracing and self._first is not None and step >= self._first + self._num_steps - 1:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Ends a trace that is going on: the run stops."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
