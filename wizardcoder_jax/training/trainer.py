"""The training loop: reads batches, runs steps and calls callbacks until the last step or a request to stop."""

from collections.abc import Callable, Sequence
from typing import Any

from wizardcoder_jax.core.distributed import AnyProcess
from wizardcoder_jax.training.callbacks.callback import Callback
from wizardcoder_jax.training.goodput import Stopwatch
from wizardcoder_jax.training.preemption import StopSignal
from wizardcoder_jax.training.train_step import TrainState, TrainStep


class Trainer:
    """The loop over training steps.

    Args:
        step: the compiled step.
        read_batch: returns the batch of a step as device arrays; the first step is 0.
        num_steps: number of steps of the whole run.
        callbacks: the callbacks, in the order in which they are called.
        stop: the stop signal of this process.
        any_process: logical OR of a flag over all processes of the run, which must leave the loop at the same step.
        clock: the stopwatch that measures the phases of the loop.
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
        """Train and return the number of steps completed in total.

        Args:
            state: the state after `start` steps; it is donated.
            start: number of steps that have already been completed.
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
