"""What is measured while a run trains: the loss on records held out, and pass@1 on a benchmark (the Evol Stop signal)."""

import functools

import jax
import jax.numpy as jnp

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.data.batches import ValidationBatches
from wizardcoder_jax.data.packed_dataset import Dataset
from wizardcoder_jax.evaluation.benchmark_evaluator import BenchmarkEvaluator
from wizardcoder_jax.models.lora import merge_adapters
from wizardcoder_jax.training.global_batch import put_batch
from wizardcoder_jax.training.objectives.cross_entropy import LossOptions
from wizardcoder_jax.training.run_log import Report
from wizardcoder_jax.training.setup import TrainingSetup
from wizardcoder_jax.training.train_step import TrainState
from wizardcoder_jax.training.validation import Validation


class EvalCallbacks:
    """What is measured while training goes on: the loss on held-out records, and pass@1 on a benchmark.

    Args:
        config: of the run.
        subject: what is trained.
        held_out: records for the loss.
    """

    def __init__(self, config: TrainConfig, subject: TrainingSetup, held_out: Dataset | None) -> None:
        self._config, self._subject, self._loss, self._examiner = config, subject, None, None
        if held_out is not None:
            sweep = ValidationBatches(held_out, config.batch_size // config.accumulation)
            put = functools.partial(
                put_batch, accumulation=1, mesh=subject.mesh, rules=subject.rules, batch_size=sweep.batch_size
            )
            unroll = jax.default_backend() == "cpu"
            self._loss = Validation(sweep, put, subject.partition, LossOptions.of(config), unroll)
        if config.validation.benchmark is not None:
            dtype, max_positions = jnp.dtype(config.compute_dtype), subject.arch.max_positions
            self._examiner = BenchmarkEvaluator(config.validation, subject.tokenizer, max_positions, dtype)

    @property
    def names(self) -> list[str]:
        """What is measured, as metrics.jsonl names it."""
        return ["validation_loss"] * (self._loss is not None) + ["pass_at_1"] * (self._examiner is not None)

    def due(self, done: int) -> bool:
        """Whether anything is measured after step `done`."""
        is_time = done % self._config.validation.every_steps == 0 or done == self._config.num_steps
        return done > 0 and is_time and bool(self.names)

    def take(self, done: int, state: TrainState, report: Report) -> None:
        """Measures the state after step `done`, by its moving average where there is one, and reports it."""
        weights, measured = state.trained if state.ema is None else state.ema, {}
        if self._loss is not None:
            measured["validation_loss"] = self._loss.loss(weights, state.frozen)
        if self._examiner is not None:
            model = self._subject.partition.join(weights, state.frozen)
            if self._config.lora.rank is not None:
                model = merge_adapters(model, jnp.dtype(self._config.compute_dtype))
            score = self._examiner.evaluate(model, self._subject.mesh)
            measured["pass_at_1"] = score.pass_at_1
            for asked in score.answers:
                report.generation(done, asked.task_id, asked.prompt, asked.answer)
        report.measured(done, measured)
