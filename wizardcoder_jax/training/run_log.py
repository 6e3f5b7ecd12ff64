"""What a run says while it trains: progress, metrics, goodput; one process writes for all."""

import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import jax

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.distributed import all_processes, is_main_process
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.progress import Progress
from wizardcoder_jax.training.goodput import GoodputLog, Stopwatch
from wizardcoder_jax.training.metrics_log import MetricsLog, describe_step
from wizardcoder_jax.training.train_step import StepMetrics
from wizardcoder_jax.training.wandb_tracker import WandbTracker


class Report:
    """Of one process; those of the others than the first write and show nothing.

    A step is on its way while its metrics are held; to `settle` waits for it.

    Args:
        config: of the run.
        start: steps done by earlier processes of the run.
        num_params: of the model.
        counts: of each step, tokens and supervised tokens of its batch.
        clock: of this process.
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
        self._held: tuple[int, StepMetrics, float] | None = None
        self._settled = time.perf_counter()
        writes, run_dir = is_main_process(), config.output_dir
        project = config.wandb_project if writes else None
        tracker = None if project is None else WandbTracker(project, run_dir, to_json(config), anew=config.overwrite)
        self._log = MetricsLog(run_dir, start, writes, tracker)
        self._goodput = GoodputLog(run_dir, clock, start, anew=config.overwrite) if writes else None
        self._progress = Progress("train", config.num_steps, "step", done=start, shown=writes)

    def hold(self, done: int, metrics: StepMetrics) -> None:
        """Takes over what step number `done` (from 1 on) will have measured."""
        self._held = done, metrics, time.perf_counter()

    def settle(self) -> None:
        """Waits for the held step and writes its line.

        Raises:
            InputError: the guard has skipped too many steps in a row.
        """
        if self._held is None:
            return
        (done, metrics, began), self._held = self._held, None
        jax.block_until_ready(metrics)
        now = time.perf_counter()
        step_s, self._settled = now - max(began, self._settled), now
        values = describe_step(metrics, self._counts(done - 1), step_s, self._num_params)
        if done % self._config.log_every_steps == 0 or done == self._config.num_steps:
            self._log.write(done, values)
        if self._goodput is not None:
            self._goodput.stepped(step_s)
        self._progress.update(1, loss=f"{values['loss']:.4f}", tokens_per_s=f"{values['tokens_per_s']:.0f}")
        skipped = int(metrics.skipped_in_row)
        if skipped >= self._config.guard.max_skipped:
            raise InputError(
                f"steps {done - skipped + 1} to {done} were skipped: loss {values['loss']:.4g}, gradient norm "
                f"{values['grad_norm']:.4g}; the weights are those before them. Lower --optim.peak-lr, look at the data, or "
                "raise --guard.max-skipped"
            )

    def lacks(self, done: int, names: Iterable[str]) -> bool:
        """Whether step `done` is yet to be measured; every process of the run asks, and is told the same."""
        return not all_processes(self._log.holds(done, names))

    def measured(self, done: int, values: dict[str, float]) -> None:
        """Adds to the line of step `done` what was measured after it."""
        self._log.write(done, values)
        told = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        self._progress.log(f"after step {done}: {told}")

    def generation(self, done: int, task_id: str, prompt: str, answer: str) -> None:
        """Writes one answer of the model as it is after step `done`."""
        self._log.write_generation(done, task_id, prompt, answer)

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.__exit__(kind, error, trace)
        self._log.close()
        if self._goodput is not None:
            print(self._goodput.save(), file=sys.stderr, flush=True)
