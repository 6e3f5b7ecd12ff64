"""Reports the progress, metrics and goodput of a run; the first process writes them on behalf of all."""

import logging
import time
from collections.abc import Callable, Iterable

import jax

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.distributed import all_processes, is_main_process
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.progress import Progress
from wizardcoder_jax.training.callbacks.callback import Callback
from wizardcoder_jax.training.goodput import GoodputLog, Stopwatch
from wizardcoder_jax.training.metrics_log import MetricsLog, describe_step
from wizardcoder_jax.training.train_step import StepMetrics, TrainState
from wizardcoder_jax.training.wandb_tracker import WandbTracker

logger = logging.getLogger(__name__)


class MetricsCallback(Callback):
    """Writes the metrics of each step one step later, so that the devices never wait for the host.

    Args:
        config: the settings of the run.
        start: number of steps that the run had completed before it was resumed.
        num_params: number of parameters of the model.
        counts: returns the numbers of tokens and supervised tokens in the batch of a step; the first step is 0.
        clock: the stopwatch of this process.
    """

    def __init__(
        self,
        config: TrainConfig,
        start: int,
        num_params: int,
        counts: Callable[[int], tuple[int, int]],
        clock: Stopwatch,
    ) -> None:
        self._config, self._num_params, self._counts = config, num_params, counts
        self._pending: tuple[int, StepMetrics, float] | None = None  # step, its metrics, time of its dispatch
        self._finished_s = time.perf_counter()  # time when the previous step finished
        is_writer, run_dir = is_main_process(), config.output_dir
        project = config.wandb_project if is_writer else None
        tracker = None if project is None else WandbTracker(project, run_dir, to_json(config), new_run=config.overwrite)
        self._log = MetricsLog(run_dir, start, is_writer, tracker)
        self._goodput = GoodputLog(run_dir, clock, start, overwrite=config.overwrite) if is_writer else None
        self._progress = Progress("train", config.num_steps, "step", done=start, shown=is_writer)

    def after_step(self, step: int, state: TrainState, metrics: StepMetrics) -> None:
        """Write the metrics of the previous step, and keep those of this step until the devices have computed them."""
        self.flush()
        self._pending = step, metrics, time.perf_counter()

    def flush(self) -> None:
        """Wait for the last dispatched step and write its metrics.

        Raises:
            InputError: too many consecutive steps were skipped.
        """
        if self._pending is None:
            return
        (step, metrics, dispatched_s), self._pending = self._pending, None
        jax.block_until_ready(metrics)
        now_s = time.perf_counter()
        step_s, self._finished_s = now_s - max(dispatched_s, self._finished_s), now_s
        values = describe_step(metrics, self._counts(step - 1), step_s, self._num_params)
        if step % self._config.log_every_steps == 0 or step == self._config.num_steps:
            self._log.write(step, values)
        if self._goodput is not None:
            self._goodput.record_step(step_s)
        self._progress.update(1, loss=f"{values['loss']:.4f}", tokens_per_s=f"{values['tokens_per_s']:.0f}")
        num_skipped = int(metrics.skipped_in_row)
        if num_skipped >= self._config.guard.max_skipped:
            raise InputError(
                f"steps {step - num_skipped + 1} to {step} were skipped (loss {values['loss']:.4g}, gradient norm "
                f"{values['grad_norm']:.4g}), so training stopped; they did not change the weights. "
                "Lower --optim.peak-lr, check the data, or raise --guard.max-skipped"
            )

    def is_missing(self, step: int, names: Iterable[str]) -> bool:
        """Return whether any of the values `names` is missing in the log entry of `step`; all processes get the same result."""
        return not all_processes(self._log.has_values(step, names))

    def write_evaluation(self, step: int, values: dict[str, float]) -> None:
        """Add the results of an evaluation after step `step` to the log entry of that step."""
        self._log.write(step, values)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        self._progress.log(f"after step {step}: {shown}")

    def write_generation(self, step: int, task_id: str, prompt: str, answer: str) -> None:
        """Log one answer that the model gave after step `step`."""
        self._log.write_generation(step, task_id, prompt, answer)

    def on_start(self, step: int, state: TrainState) -> None:
        """Show the progress bar."""
        self._progress.__enter__()

    def close(self) -> None:
        """Close all logs and report the goodput."""
        self._progress.__exit__(None, None, None)
        self._log.close()
        if self._goodput is not None:
            logger.info(str(self._goodput.save()))
