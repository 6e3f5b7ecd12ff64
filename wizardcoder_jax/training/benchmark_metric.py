"""pass@1 on a benchmark during training: runs the model's greedy answers in the sandbox."""

from typing import Protocol

import jax.numpy as jnp

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.evaluation.benchmark_evaluator import BenchmarkEvaluator
from wizardcoder_jax.models.lora import merge_adapters
from wizardcoder_jax.training.setup import TrainingSetup
from wizardcoder_jax.training.trainable import Params


class GenerationLog(Protocol):
    """A log of the model's answers."""

    def write_generation(self, step: int, task_id: str, prompt: str, answer: str) -> None:
        """Log one answer that the model gave after step `step`."""
        ...


class BenchmarkMetric:
    """Evaluates pass@1 on a benchmark and logs the model's first few answers.

    Args:
        config: the settings of the run; `validation.benchmark` must be set.
        setup: the model to train and its devices.

    Raises:
        InputError: the benchmark cannot be evaluated on this machine.
    """

    name = "pass_at_1"

    def __init__(self, config: TrainConfig, setup: TrainingSetup) -> None:
        self._setup, self._dtype = setup, jnp.dtype(config.compute_dtype)
        self._has_adapters = config.lora.rank is not None
        self._evaluator = BenchmarkEvaluator(config.validation, setup.tokenizer, setup.arch.max_positions, self._dtype)

    def evaluate(self, step: int, trained: Params, frozen: Params, metrics: GenerationLog) -> float:
        """Return pass@1; all processes of the run call this together."""
        model = self._setup.partition.join(trained, frozen)
        if self._has_adapters:
            model = merge_adapters(model, self._dtype)
        score = self._evaluator.evaluate(model, self._setup.mesh)
        for answer in score.answers:
            metrics.write_generation(step, answer.task_id, answer.prompt, answer.answer)
        return score.pass_at_1
