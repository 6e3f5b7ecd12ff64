"""The logs of a run: metrics.jsonl, generations.jsonl, TensorBoard and Weights & Biases, with one entry per logged step."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from tensorboardX import SummaryWriter

from wizardcoder_jax.core.accelerators import find_accelerator
from wizardcoder_jax.core.filesystem import atomic_write, exists, is_remote, read_text
from wizardcoder_jax.core.record_files import write_jsonl
from wizardcoder_jax.training.train_step import StepMetrics
from wizardcoder_jax.training.wandb_tracker import WandbTracker

METRICS, GENERATIONS = FILES = ("metrics.jsonl", "generations.jsonl")
UPLOAD_INTERVAL_S = 30.0


def model_flops_utilization(num_params: int, tokens_per_s: float) -> float | None:
    """Return the share of the devices' peak that 6 FLOPs per parameter and token amount to; None if the peak is unknown.

    Two FLOPs forward and four backward, whichever weights are trained. Attention scores, recomputation and padding do not count
    (arXiv 2204.02311, appendix B, without its attention term).

    Args:
        num_params: of the model.
        tokens_per_s: without padding.
    """
    chip = find_accelerator(jax.devices()[0].device_kind)
    return None if chip is None else 6 * num_params * tokens_per_s / (chip.peak_flops * jax.device_count())


def describe_step(metrics: StepMetrics, counts: tuple[int, int], step_s: float, num_params: int) -> dict[str, float]:
    """Return the entry of one step in metrics.jsonl.

    Args:
        metrics: of the step.
        counts: tokens and supervised tokens of its batch, over all processes.
        step_s: its wall time.
        num_params: of the model, from which its utilization follows.
    """
    num_tokens, num_supervised = counts
    values = {
        "loss": float(metrics.loss),
        **{name: float(value) for name, value in metrics.objective.items()},
        "grad_norm": float(metrics.grad_norm),
        "lr": float(metrics.lr),
        "tokens_per_s": num_tokens / step_s,
        "supervised_tokens_per_s": num_supervised / step_s,
        "step_s": step_s,
    }
    if num_skipped := int(metrics.num_skipped):
        values["skipped_steps"] = num_skipped
    mfu = model_flops_utilization(num_params, num_tokens / step_s)
    return values if mfu is None else {**values, "mfu": mfu}


class MetricsLog:
    """Appends to RUN/metrics.jsonl, TensorBoard events and optionally Weights & Biases; entries after `step` are dropped first.

    An object store cannot append. For a gs:// folder all files are kept in a local folder and uploaded whole every
    UPLOAD_INTERVAL_S and at the end.

    Args:
        run_dir: the run's folder, local or gs://.
        step: the step that the run resumes from.
        is_writer: whether this process writes; in all others the log does nothing.
        tracker: Weights & Biases, already open.
    """

    def __init__(self, run_dir: str, step: int, is_writer: bool = True, tracker: WandbTracker | None = None) -> None:
        self._is_writer, self._tracker = is_writer, tracker
        if not is_writer:
            return
        self._run_dir, self._local = run_dir, run_dir
        self._scratch = tempfile.TemporaryDirectory(prefix="metrics-") if is_remote(run_dir) else None
        if self._scratch is not None:
            self._local = self._scratch.name
        for name in FILES:
            source, path = os.path.join(run_dir, name), os.path.join(self._local, name)
            if exists(source):
                write_jsonl(path, _entries_up_to(source, step))
        self._last = _last_entry(os.path.join(self._local, METRICS))
        self._uploaded = time.monotonic()
        self._events = SummaryWriter(self._local, purge_step=step + 1)

    def has_values(self, step: int, names: Iterable[str]) -> bool:
        """Return whether the newest entry is that of `step` and has all these values; True in a process that does not write."""
        return not self._is_writer or (self._last.get("step") == step and set(names) <= self._last.keys())

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add the entry of a step, or add values to the newest entry."""
        if not self._is_writer:
            return
        if self._last.get("step") == step:
            path, self._last = os.path.join(self._local, METRICS), {**self._last, **values}
            write_jsonl(path, [*_entries_up_to(path, step - 1), self._last])
        else:
            self._last = {"step": step, **values}
            self._append(METRICS, self._last)
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        if self._tracker is not None:
            self._tracker.log(step, values)
        if time.monotonic() - self._uploaded >= UPLOAD_INTERVAL_S:
            self._upload()

    def write_generation(self, step: int, task_id: str, prompt: str, answer: str) -> None:
        """Add one answer of the model as of `step`."""
        if self._is_writer:
            self._append(GENERATIONS, {"step": step, "task_id": task_id, "prompt": prompt, "answer": answer})
            indented = "\n".join("    " + line for line in answer.split("\n"))  # TensorBoard renders Markdown
            self._events.add_text(task_id, indented, step)

    def close(self) -> None:
        """Flush and close all logs."""
        if self._is_writer:
            self._events.close()
            self._upload()
            if self._scratch is not None:
                self._scratch.cleanup()
            if self._tracker is not None:
                self._tracker.close()

    def _append(self, name: str, entry: dict[str, Any]) -> None:
        with open(os.path.join(self._local, name), "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _upload(self) -> None:
        self._uploaded = time.monotonic()
        if self._scratch is None:
            return
        for name in os.listdir(self._local):
            with open(os.path.join(self._local, name), "rb") as file, atomic_write(f"{self._run_dir}/{name}") as copy:
                copy.write(file.read())


def _last_entry(path: str) -> dict[str, Any]:
    entries = list(_entries_up_to(path, sys.maxsize)) if exists(path) else []
    return entries[-1] if entries else {}


def _entries_up_to(path: str, step: int) -> Iterator[dict[str, Any]]:
    for line in read_text(path).split("\n"):
        try:
            entry = json.loads(line)
        except ValueError:  # the truncated last line of a killed run
            continue
        if entry["step"] <= step:
            yield entry
