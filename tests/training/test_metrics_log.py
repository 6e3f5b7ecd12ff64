import dataclasses
import functools
import glob
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.helpers import tiny_models
from tests.helpers.object_store import emulated_bucket
from tests.helpers.processes import run_python
from tests.helpers.tensorboard_events import scalars_and_texts
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.accelerators import ACCELERATORS
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.training import metrics_log
from wizardcoder_jax.training.callbacks.profiler_callback import ProfilerCallback
from wizardcoder_jax.training.global_batch import put_batch
from wizardcoder_jax.training.metrics_log import MetricsLog
from wizardcoder_jax.training.objectives.objective import LossOptions
from wizardcoder_jax.training.objectives.token_mean import TokenMean
from wizardcoder_jax.training.trainable import Partition
from wizardcoder_jax.training.validation_loss import ValidationLoss
from wizardcoder_jax.training.wandb_tracker import WandbTracker

# A fake wandb package that appends every call to a file.
FAKE_WANDB = """
import json, os
class Run:
    def __init__(self, settings):
        self.id = settings["id"] or "new-id"
        self.record("init", settings)
    def record(self, kind, value):
        with open(os.environ["FAKE_WANDB_LOG"], "a") as file:
            file.write(json.dumps([kind, value]) + "\\n")
    def log(self, values, step):
        self.record("log", [step, values])
    def finish(self):
        self.record("finish", None)
def init(**settings):
    if settings["project"] == "broken":
        raise RuntimeError("key secret-key refused")
    return Run(settings)
"""


def entries(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_and_its_evaluation_are_one_entry_in_every_log(tmp_path):
    log = MetricsLog(str(tmp_path), 0)
    log.write(1, {"loss": 2.0})
    log.write(2, {"loss": 1.0, "validation_loss": 1.5, "pass_at_1": 0.25})
    log.write_generation(2, "T/0", "def f():", "    return 1\n")
    log.close()
    second = {"step": 2, "loss": 1.0, "validation_loss": 1.5, "pass_at_1": 0.25}
    assert entries(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2.0}, second]
    generation = {"step": 2, "task_id": "T/0", "prompt": "def f():", "answer": "    return 1\n"}
    assert entries(tmp_path / "generations.jsonl") == [generation]
    scalars, texts = scalars_and_texts(tmp_path)
    assert scalars == {("loss", 1): 2.0, ("loss", 2): 1.0, ("validation_loss", 2): 1.5, ("pass_at_1", 2): 0.25}
    assert [("return 1" in text) for text in texts] == [True]


def test_generations_after_the_resumed_step_are_dropped(tmp_path):
    for start in (0, 1):
        log = MetricsLog(str(tmp_path), start)
        for step in range(start + 1, 3):
            log.write_generation(step, "T/0", "", f"from {start}")
        log.close()
    assert [(entry["step"], entry["answer"]) for entry in entries(tmp_path / "generations.jsonl")] == [
        (1, "from 0"),
        (2, "from 1"),
    ]


def test_a_process_that_is_not_the_writer_writes_no_files(tmp_path):
    log = MetricsLog(str(tmp_path), 0, is_writer=False)
    log.write(1, {"loss": 1.0})
    log.write_generation(1, "T/0", "", "")
    log.close()
    assert list(tmp_path.iterdir()) == []


# Logs steps 1 and 2 to a bucket, resumes from step 1, and prints the files in the bucket.
STORED = """
from wizardcoder_jax.core.filesystem import read_text, remote_path
from wizardcoder_jax.training import metrics_log
metrics_log.UPLOAD_INTERVAL_S = 0.0
log = metrics_log.MetricsLog("gs://bucket/run", 0)
log.write(1, {"loss": 2.0})
log.write(2, {"loss": 1.0})  # no close, as if the run was killed
assert read_text("gs://bucket/run/metrics.jsonl").count("loss") == 2
log = metrics_log.MetricsLog("gs://bucket/run", 1)
log.write(2, {"loss": 0.5})
log.close()
print(read_text("gs://bucket/run/metrics.jsonl"), end="")
print(sum("tfevents" in path.name for path in remote_path("gs://bucket/run").iterdir()))
"""


def test_metrics_of_a_run_in_an_object_store_are_uploaded():
    with emulated_bucket():
        done = run_python("-c", STORED)
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, num_event_files = done.stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 0.5}]
    assert int(num_event_files) >= 1


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path/wandb.py").write_text(FAKE_WANDB)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setenv("FAKE_WANDB_LOG", str(tmp_path / "calls"))
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    yield tmp_path / "calls"
    sys.modules.pop("wandb", None)


def test_a_restarted_run_continues_the_same_wandb_run(wandb, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for start in (0, 1):
        log = MetricsLog(str(run), start, tracker=WandbTracker("p", str(run), {"seed": 0}))
        log.write(start + 1, {"loss": 1.0})
        log.close()
    calls = entries(wandb)
    assert [kind for kind, _ in calls] == ["init", "log", "finish"] * 2
    assert [calls[0][1]["id"], calls[3][1]["id"]] == [None, "new-id"]
    assert calls[4][1] == [2, {"loss": 1.0}]
    assert "secret-key" not in wandb.read_text() + (run / "wandb_id.txt").read_text()


def test_an_unavailable_wandb_is_one_clear_error(wandb, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot open Weights & Biases project 'broken'") as refused:
        WandbTracker("broken", str(tmp_path), {})
    assert "secret-key" not in str(refused.value)
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(InputError, match="WANDB_API_KEY is not; set it"):
        WandbTracker("p", str(tmp_path), {})
    monkeypatch.setenv("WANDB_MODE", "offline")
    WandbTracker("p", str(tmp_path), {})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="the package wandb is not installed; run pip install wandb"):
        WandbTracker("p", str(tmp_path), {})


def test_utilization_is_known_only_for_known_accelerators(monkeypatch):
    assert metrics_log.model_flops_utilization(10, 1.0) is None
    device = dataclasses.replace(ACCELERATORS["v5e"], device_kind=jax.devices()[0].device_kind, peak_flops=1200.0)
    monkeypatch.setitem(ACCELERATORS, "this", device)
    assert metrics_log.model_flops_utilization(10, 5.0) == pytest.approx(6 * 10 * 5 / 1200 / jax.device_count())


@pytest.mark.parametrize(("start", "stop", "traced"), [(0, 5, True), (0, 2, True), (2, 5, False), (0, 1, False)])
def test_the_profiler_traces_its_window_even_if_the_run_stops_within_it(tmp_path, start, stop, traced):
    profiler, state, metrics = ProfilerCallback(str(tmp_path), 2, 2), None, jnp.ones(8).sum()
    for step in range(start + 1, stop + 1):
        profiler.before_step(step)
        profiler.after_step(step, state, metrics)
    profiler.on_end(stop, state)
    profiler.on_end(stop, state)
    assert bool(glob.glob(f"{tmp_path}/profile/**/*.xplane.pb", recursive=True)) == traced


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    theirs = tiny_models.gpt_bigcode(attn_implementation="eager")
    return theirs, tiny_models.ours(theirs, tmp_path_factory.mktemp("pair"))


def held_out_rows(num_rows=5, length=24):
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 380, (num_rows, length + 1)).astype(np.int32)
    weights = (rng.random((num_rows, length)) < np.linspace(0.1, 1, num_rows)[:, None]).astype(np.float32)
    ones = np.ones((num_rows, length), np.int32)
    positions = np.arange(length, dtype=np.int32)[None].repeat(num_rows, axis=0)
    return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights, "segment_ids": ones, "positions": positions}


class HeldOut:
    """Batches of held-out rows with weights that sum to 1; the last batch is padded."""

    def __init__(self, rows, batch_size):
        self.rows, self.batch_size = rows, batch_size
        self.num_batches = -(-len(rows["tokens"]) // batch_size)

    def batch(self, index, positions):
        wanted = index * self.batch_size + positions
        exists = (wanted < len(self.rows["tokens"]))[:, None]
        cut = {name: np.where(exists, array[wanted % len(array)], 0) for name, array in self.rows.items()}
        cut["weights"] = (cut["weights"] / self.rows["weights"].sum()).astype(np.float32)
        return {**cut, "seeds": np.zeros(len(positions), np.uint32)}


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_the_validation_loss_is_torchs_mean_over_all_supervised_tokens(pair, batch_size):
    rows = held_out_rows()
    with torch.no_grad():
        logits = pair[0](torch.tensor(rows["tokens"]).long()).logits
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(rows["targets"]).long().flatten(), reduction="none"
    ).numpy()
    weights = rows["weights"].flatten()
    config, mesh = TrainConfig(compute_dtype="float32"), make_mesh("1x1")
    put = functools.partial(put_batch, batch_size=batch_size, accumulation=1, mesh=mesh, rules=RULES["fsdp"])
    partition = Partition.of(pair[1], config)
    held_out, options = HeldOut(rows, batch_size), LossOptions.from_config(config)
    validation = ValidationLoss(held_out, put, partition, TokenMean(), options, unroll=True)
    assert validation.evaluate(0, *partition.split(pair[1])) == pytest.approx(
        (losses * weights).sum() / weights.sum(), rel=1e-5
    )
