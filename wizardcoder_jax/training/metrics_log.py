"""Writes the logs of a run: metrics.jsonl, generations.jsonl, TensorBoard events and Weights & Biases."""

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
    """Return the model FLOPs utilization (MFU), or None if the peak FLOPs of the devices are unknown.

    A token is counted as 6 FLOPs per parameter: 2 forward and 4 backward, even if some weights are frozen. Attention scores,
    recomputation and padding are not counted (arXiv 2204.02311, appendix B, without its attention term).

    Args:
        num_params: number of parameters of the model.
        tokens_per_s: tokens per second over all devices, without padding.
    """
    chip = find_accelerator(jax.devices()[0].device_kind)
    return None if chip is None else 6 * num_params * tokens_per_s / (chip.peak_flops * jax.device_count())


def describe_step(metrics: StepMetrics, counts: tuple[int, int], step_s: float, num_params: int) -> dict[str, float]:
    """Return the values of one step for metrics.jsonl.

    Args:
        metrics: the metrics of the step.
        counts: the numbers of tokens and supervised tokens in its batch, over all processes.
        step_s: the wall time of the step in seconds.
        num_params: number of parameters of the model, used to compute the MFU.
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
    """Appends to all logs of a run: one entry per logged step. Existing entries after `step` are first removed.

    Object stores cannot append to files. If the run's folder is on gs://, the files are written to a local folder and uploaded
    as a whole every UPLOAD_INTERVAL_S seconds and at the end.

    Args:
        run_dir: the run's folder, local or gs://.
        step: the step that the run resumes from.
        is_writer: whether this process writes the logs; if False, all methods do nothing.
        tracker: an open Weights & Biases run, or None.
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
        """Return whether the newest entry belongs to `step` and has the values `names`; True if this process writes no logs."""
        return not self._is_writer or (self._last.get("step") == step and set(names) <= self._last.keys())

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add an entry for `step`, or add values to the newest entry if it belongs to the same step."""
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
        """Log one answer that the model gave after step `step`."""
        if self._is_writer:
            self._append(GENERATIONS, {"step": step, "task_id": task_id, "prompt": prompt, "answer": answer})
            # TensorBoard renders Markdown, in which indented lines are a code block.
            indented = "\n".join("    " + line for line in answer.split("\n"))
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
        except ValueError:  # a line that was cut off when the run was killed
            continue
        if entry["step"] <= step:
            yield entry
