"""What a run reports: metrics.jsonl and TensorBoard, one entry a logged step."""

import json
import os
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from wizardcoder_jax.files import write_jsonl
from wizardcoder_jax.training.step import StepMetrics

PEAK_FLOPS = {  # dense bf16 a chip, by jax's device kind; vendors' data sheets
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
}


def model_flops_utilization(num_params: int, tokens_per_s: float) -> float | None:
    """Share of the devices' peak that 6 FLOPs a parameter and token come to; None where the peak is unknown."""
    peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return None if peak is None else 6 * num_params * tokens_per_s / (peak * jax.device_count())


def describe_step(
    metrics: StepMetrics, lr: Any, rows: dict[str, np.ndarray], step_s: float, num_params: int
) -> dict[str, float]:
    """What metrics.jsonl says of one step.

    Args:
        metrics: the step's own.
        lr: its learning rate.
        rows: the batch, as it was on the host.
        step_s: its wall time.
        num_params: of the model, for the utilization.
    """
    tokens_per_s = int((rows["segment_ids"] > 0).sum()) / step_s
    values = {
        "loss": float(metrics.loss),
        "grad_norm": float(metrics.grad_norm),
        "lr": float(lr),
        "tokens_per_s": tokens_per_s,
        "supervised_tokens_per_s": float((rows["weights"] > 0).sum()) / step_s,
        "step_s": step_s,
    }
    mfu = model_flops_utilization(num_params, tokens_per_s)
    return values if mfu is None else {**values, "mfu": mfu}


class MetricsLog:
    """Appends to RUN/metrics.jsonl and to TensorBoard events beside it; entries after `step` are dropped first.

    Args:
        run_dir: the run's folder, a local one.
        step: the step that the run goes on from.
    """

    def __init__(self, run_dir: str, step: int) -> None:
        path = os.path.join(run_dir, "metrics.jsonl")
        if os.path.exists(path):
            write_jsonl(path, _entries_up_to(path, step))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
        self._events = SummaryWriter(run_dir, purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one logged step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Makes all of it durable."""
        self._file.close()
        self._events.close()


def _entries_up_to(path: str, step: int) -> list[dict[str, float]]:
    entries = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a run that was cut off
                continue
            if entry["step"] <= step:
                entries.append(entry)
    return entries
