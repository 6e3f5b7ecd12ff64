"""The training loop: read a batch, run the step, call the callbacks, until the last step or a request to stop."""

from collections.abc import Callable, Sequence
from typing import Any

from wizardcoder_jax.core.distributed import AnyProcess
from wizardcoder_jax.training.callbacks.callback import Callback
from wizardcoder_jax.training.goodput import Stopwatch
from wizardcoder_jax.training.preemption import StopSignal
from wizardcoder_jax.training.train_step import TrainState, TrainStep


class Trainer:
    """A loop over steps.

    Args:
        step: the compiled step.
        read_batch: returns the batch of a step, 0 being the first, on the devices.
        num_steps: steps of the whole run.
        callbacks: called in this order.
        stop: whether this process was asked to stop.
        any_process: combines that over all processes of the run, which must leave the loop at the same step.
        clock: accounts for the time of the loop.
    """

    def __init__(
        self,
        *,
        step: TrainStep,
        read_batch: Callable[[int], Any],
        num_steps: int,
        callbacks: Sequence[Callback],
        stop: StopSignal,
        any_process: AnyProcess,
        clock: Stopwatch,
    ) -> None:
        self._step, self._read_batch, self._num_steps = step, read_batch, num_steps
        self._callbacks, self._stop, self._any_process, self._clock = callbacks, stop, any_process, clock

    def run(self, state: TrainState, start: int) -> int:
        """Train from `state`, which `start` steps have led to, and return the number of steps that are now done.

        The state is donated.
        """
        try:
            for callback in self._callbacks:
                callback.on_start(start, state)
            done = start
            while done < self._num_steps and not self._any_process(self._stop.requested):
                with self._clock.phase("data"):
                    batch = self._read_batch(done)
                self._stop.defer_exit()
                with self._clock.phase("step"):
                    for callback in self._callbacks:
                        callback.before_step(done + 1)
                    state, metrics = self._step(state, batch)
                    done += 1
                    for callback in self._callbacks:
                        callback.after_step(done, state, metrics)
            for callback in self._callbacks:
                callback.on_end(done, state)
            return done
        finally:
            for callback in self._callbacks:
                callback.close()
