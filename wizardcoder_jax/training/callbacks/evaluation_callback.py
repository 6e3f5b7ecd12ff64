"""Evaluation during training: the validation loss, and pass@1 on a benchmark (used to decide when to stop evolving)."""

from collections.abc import Sequence
from typing import Protocol

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.data.packed_dataset import Dataset
from wizardcoder_jax.training.benchmark_metric import BenchmarkMetric
from wizardcoder_jax.training.callbacks.callback import Callback
from wizardcoder_jax.training.callbacks.checkpoint_callback import CheckpointCallback
from wizardcoder_jax.training.callbacks.metrics_callback import MetricsCallback
from wizardcoder_jax.training.goodput import Stopwatch
from wizardcoder_jax.training.preemption import StopSignal
from wizardcoder_jax.training.setup import TrainingSetup
from wizardcoder_jax.training.train_step import StepMetrics, TrainState
from wizardcoder_jax.training.trainable import Params
from wizardcoder_jax.training.validation_loss import ValidationLoss


class Evaluator(Protocol):
    """The interface of an evaluation that returns one number.

    Attributes:
        name: the key of the number in metrics.jsonl.
    """

    name: str

    def evaluate(self, step: int, trained: Params, frozen: Params, metrics: MetricsCallback) -> float:
        """Evaluate the weights after step `step`; may log answers to `metrics`. All processes must call this together."""
        ...


def make_evaluators(config: TrainConfig, setup: TrainingSetup, validation_data: Dataset | None) -> list[Evaluator]:
    """Return the evaluators that the settings enable.

    Raises:
        InputError: the benchmark cannot be evaluated on this machine.
    """
    evaluators: list[Evaluator] = []
    if validation_data is not None:
        evaluators.append(ValidationLoss.from_setup(config, setup, validation_data))
    if config.validation.benchmark is not None:
        evaluators.append(BenchmarkMetric(config, setup))
    return evaluators


class EvaluationSchedule:
    """The steps after which a run is evaluated: every `validation.every_steps` steps and the last; none without evaluators."""

    def __init__(self, config: TrainConfig, evaluators: Sequence[Evaluator]) -> None:
        self._every_steps, self._num_steps = config.validation.every_steps, config.num_steps
        self._has_evaluators = bool(evaluators)

    def is_due(self, step: int) -> bool:
        """Return whether the state after step `step` must be evaluated."""
        return step > 0 and self._has_evaluators and (step % self._every_steps == 0 or step == self._num_steps)


class EvaluationCallback(Callback):
    """Evaluates the weights, or their moving average if there is one, and logs all results of a step in one entry.

    Args:
        evaluators: the evaluations to run.
        schedule: the steps after which to evaluate.
        checkpoint: saves the state before an evaluation, which can take minutes.
        metrics: logs the results.
        stop: the stop signal, which may end the process during an evaluation because the state has been saved.
        clock: the stopwatch of this process.
    """

    def __init__(
        self,
        evaluators: Sequence[Evaluator],
        schedule: EvaluationSchedule,
        checkpoint: CheckpointCallback,
        metrics: MetricsCallback,
        stop: StopSignal,
        clock: Stopwatch,
    ) -> None:
        self._evaluators, self._schedule, self._checkpoint = evaluators, schedule, checkpoint
        self._metrics, self._stop, self._clock = metrics, stop, clock

    def on_start(self, step: int, state: TrainState) -> None:
        """Evaluate the restored state if the run was stopped before its evaluation had finished."""
        if self._schedule.is_due(step) and self._metrics.is_missing(step, [each.name for each in self._evaluators]):
            self._evaluate(step, state)

    def after_step(self, step: int, state: TrainState, metrics: StepMetrics) -> None:
        """Evaluate the state if an evaluation is due, once its checkpoint is durable."""
        if self._schedule.is_due(step):
            self._checkpoint.wait()
            self._stop.allow_exit()
            self._evaluate(step, state)

    def _evaluate(self, step: int, state: TrainState) -> None:
        with self._clock.phase("validation"):
            weights = state.trained if state.ema is None else state.ema
            values = {each.name: each.evaluate(step, weights, state.frozen, self._metrics) for each in self._evaluators}
            self._metrics.write_evaluation(step, values)
