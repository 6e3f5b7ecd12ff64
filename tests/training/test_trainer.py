import copy
import dataclasses
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.sharding import PartitionSpec

from tests.helpers import tiny_models
from tests.helpers.processes import REPOSITORY, run_python
from wizardcoder_jax import train
from wizardcoder_jax.checkpoints.reader import find_checkpoint
from wizardcoder_jax.config import OptimConfig, TrainConfig
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.training.global_batch import put_batch
from wizardcoder_jax.training.metrics_log import MetricsLog
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy
from wizardcoder_jax.training.optimizers.factory import make_optimizer, make_schedule
from wizardcoder_jax.training.train_step import make_step, new_state
from wizardcoder_jax.training.trainable import Partition

TINY = REPOSITORY / "configs/tiny.py"
FAMILIES = {
    "gpt_bigcode": lambda **changes: tiny_models.gpt_bigcode(vocab_size=393, **changes),
    "llama": lambda **changes: tiny_models.llama(vocab_size=393, tie_word_embeddings=True, **changes),
}
SHARDED = [*((base, layout) for base in FAMILIES for layout in ("2x4 tensor", "2x4 fsdp")), ("wide", "2x4 tensor")]
# Runs doors one after the other in one process; the last word is whether TensorFlow was needed.
MANY_RUNS = """
import json, sys
from wizardcoder_jax.train import main
for arguments in json.load(open(sys.argv[1])):
    main(arguments)
print("tensorflow" in sys.modules)
"""
# The train door, but a signal reaches it right after a line of metrics.jsonl.
SIGNALLED_RUN = """
import os, signal, sys
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.train import main
from wizardcoder_jax.training.metrics_log import MetricsLog
kind, at = getattr(signal, sys.argv[1]), int(sys.argv[2])
write = MetricsLog.write
def write_and_signal(self, step, values):
    write(self, step, values)
    if step == at:
        os.kill(os.getpid(), kind)
MetricsLog.write = write_and_signal
del sys.argv[1:3]
run_command(main)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two tiny models, one of vocabulary 49153, data, and a cache: what every run below shares."""
    folder = tmp_path_factory.mktemp("training")
    for name, make in FAMILIES.items():
        tiny_models.save_folder(make(), folder / name)
    tiny_models.save_folder(tiny_models.gpt_bigcode(vocab_size=49153, n_embd=16, n_layer=1, n_inner=16), folder / "wide")
    records = [
        {"instruction": f"Add {i} to two numbers.", "output": f"def add(a, b):\n    return a + b + {i}\n" * (1 + i % 3)}
        for i in range(40)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def arguments(place, base, output, *more):
    paths = ["--base", place / base, "--data", place / "data.jsonl", "--output-dir", output, "--cache-dir", place / "cache"]
    return [str(part) for part in ["--config", TINY, *paths, "--max-length", "128", *more]]


def losses(output):
    entries = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(1, len(entries) + 1))
    return [entry["loss"] for entry in entries]


def run_all(place, runs, num_devices=1):
    (place / "runs.json").write_text(json.dumps(runs))
    done = run_python("-c", MANY_RUNS, place / "runs.json", num_devices=num_devices)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def meshes(place):
    """Ten steps of each model on one device and on 2x4 under each strategy, all in one process with 8 devices."""
    layouts = {"1x1": ("1x1", "fsdp"), "2x4 tensor": ("2x4", "fsdp_tensor"), "2x4 fsdp": ("2x4", "fsdp")}
    wanted = [*SHARDED, *((base, "1x1") for base in (*FAMILIES, "wide"))]
    found = {(base, name): place / f"mesh {base} {name}" for base, name in wanted}
    runs = []
    for (base, name), output in found.items():
        mesh, strategy = layouts[name]
        more = ["--mesh", mesh, "--strategy", strategy, "--num-steps", "10", "--checkpoint-every-steps", "100"]
        runs.append(arguments(place, base, output, *more))
    run_all(place, runs, num_devices=8)
    return {key: losses(output) for key, output in found.items()}


@pytest.fixture(scope="module")
def whole_run(place, meshes):
    """Ten steps without interruption, on a cache that is warm."""
    output = place / "whole"
    assert run_all(place, [arguments(place, "llama", output, "--num-steps", "10")]) == "False"
    return output


def packed_batch(vocab_size, num_rows=8, length=32):
    """Rows of two segments; weights on the later part of each."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, vocab_size, (num_rows, length + 1)).astype(np.int32)
    segment_ids = np.repeat([[1, 2, 0]], num_rows, axis=0).repeat([14, 12, 6], axis=1).astype(np.int32)
    positions = np.concatenate([np.arange(14), np.arange(12), np.arange(6)])[None].repeat(num_rows, axis=0).astype(np.int32)
    weights = ((positions >= 5) & (segment_ids > 0)).astype(np.float32)
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "weights": weights / weights.sum(),
        "segment_ids": segment_ids,
        "positions": positions,
        "seeds": np.arange(num_rows, dtype=np.uint32),
    }


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    theirs = FAMILIES[request.param](attn_implementation="eager")
    return theirs, tiny_models.ours(theirs, tmp_path_factory.mktemp("pair"))


def torch_loss(model, rows):
    """Token mean of the cross-entropy, each segment run alone."""
    total, count = 0.0, 0
    for segment in (1, 2):
        here = rows["segment_ids"][0] == segment
        tokens, targets = (torch.tensor(rows[name][:, here]).long() for name in ("tokens", "targets"))
        log_probabilities = torch.log_softmax(model(tokens).logits.float(), -1)
        supervised = torch.tensor(rows["weights"][:, here] > 0).long()
        total = total - (log_probabilities.gather(-1, targets[..., None])[..., 0] * supervised).sum()
        count += int(supervised.sum())
    return total / count


def test_the_loss_is_torchs_cross_entropy_over_weighted_tokens_of_packed_rows(pair):
    theirs, ours = pair
    rows = packed_batch(393)
    with torch.no_grad():
        expected = float(torch_loss(theirs, rows))
    total = jax.jit(lambda model, batch: weighted_cross_entropy(model, batch, LossOptions(dtype=jnp.float32)))(
        ours, Batch(**rows)
    )
    assert float(total) == pytest.approx(expected, rel=1e-5)


# eps is far above 1e-8: a key's bias moves no score, its gradient is rounding noise, and AdamW would make a step of it
OPTIM = OptimConfig(peak_lr=1e-3, warmup_steps=0, eps=1e-4, weight_decay=0.1)
CONFIG = TrainConfig(num_steps=10, batch_size=8, accumulation=1, compute_dtype="float32", remat="none", optim=OPTIM)


def steps_of(model, config, rows, num_steps=3):
    """Losses and gradient norms of `num_steps` steps on the same rows, and the state after them."""
    mesh, rules = make_mesh("1x1"), RULES["fsdp"]
    step = make_step(config, Partition.of(model, config), unroll=False)
    state, seen = new_state(jax.tree.map(jnp.copy, model), config, mesh, rules), []

    def read(places):
        return {name: array[places] for name, array in rows.items()}

    for _ in range(num_steps):
        state, metrics = step(state, put_batch(read, config.batch_size, config.accumulation, mesh, rules))
        seen.append((float(metrics.loss), float(metrics.grad_norm)))
    return seen, state


def test_three_steps_of_fine_tuning_equal_torchs(pair):
    theirs, ours = copy.deepcopy(pair[0]), pair[1]  # in eval mode: without dropout
    rows, seen = packed_batch(393), []
    schedule = make_schedule(OPTIM, 10)
    optimizer = torch.optim.AdamW(theirs.parameters(), betas=(0.9, 0.999), eps=OPTIM.eps, weight_decay=OPTIM.weight_decay)
    for i in range(3):
        optimizer.param_groups[0]["lr"] = float(schedule(i))
        loss = torch_loss(theirs, rows)
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in theirs.parameters()))
        seen.append((loss.item(), norm))
        optimizer.step()
    np.testing.assert_allclose(steps_of(ours, CONFIG, rows)[0], seen, rtol=2e-5)
    assert seen[2][0] < seen[0][0]


def test_the_optimizer_equals_torchs_adamw_on_the_same_gradients():
    config = OptimConfig(peak_lr=1e-2, warmup_steps=2, weight_decay=0.1, b2=0.95)
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=50).astype(np.float32), rng.normal(size=(3, 50)).astype(np.float32)
    optimizer, schedule = make_optimizer(config, 10), make_schedule(config, 10)
    ours, state = jnp.asarray(start), make_optimizer(config, 10).init(jnp.asarray(start))
    theirs = torch.nn.Parameter(torch.tensor(start))
    other = torch.optim.AdamW([theirs], betas=(config.b1, config.b2), eps=config.eps, weight_decay=config.weight_decay)
    for i in range(3):
        updates, state = optimizer.update(jnp.asarray(grads[i]), state, ours)
        ours = optax.apply_updates(ours, updates)
        theirs.grad, other.param_groups[0]["lr"] = torch.tensor(grads[i]), float(schedule(i))
        other.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-6)
    assert np.abs(np.asarray(ours) - start).max() > 1e-3


def test_the_schedule_warms_up_then_follows_half_a_cosine():
    schedule = make_schedule(OptimConfig(peak_lr=2e-5, warmup_steps=30), 200)
    assert [float(schedule(i)) for i in (0, 15, 30, 115, 200)] == pytest.approx([0, 1e-5, 2e-5, 1e-5, 0], abs=1e-11)
    assert float(make_schedule(OptimConfig(peak_lr=1.0, warmup_steps=0), 4)(0)) == 1.0
    short = make_schedule(OptimConfig(peak_lr=1.0, warmup_steps=30), 10)  # fewer steps than the warmup
    assert [float(short(i)) for i in (0, 5, 10)] == pytest.approx([0, 0.5, 1.0])


def test_gradients_are_clipped_by_their_global_norm():
    grads = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    optimizer = make_optimizer(OptimConfig(peak_lr=1.0, warmup_steps=0, b1=0.0, b2=0.0, eps=1.0, clip_norm=1.0), 10)
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-0.6 / 1.6, -0.8 / 1.8], rtol=1e-5)


def test_accumulated_microbatches_equal_one_batch(pair):
    rows = packed_batch(393)
    rows["weights"] = (rows["weights"] > 0) * (np.arange(8)[:, None] % 3 > 0)  # unequal numbers of supervised tokens
    rows["weights"] = (rows["weights"] / rows["weights"].sum()).astype(np.float32)
    whole, state = steps_of(pair[1], CONFIG, rows)
    split, other = steps_of(pair[1], dataclasses.replace(CONFIG, accumulation=4), rows)
    np.testing.assert_allclose(split, whole, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), state.trained, other.trained)


def test_padding_of_the_vocabulary_stays_zero_with_zero_moments(pair):
    _, state = steps_of(pair[1], CONFIG, packed_batch(393))
    tables = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (512, 32)]
    assert len(tables) == 3  # the tied embedding and its two moments
    for table in tables:
        assert np.abs(table[:393]).max() > 0
        assert not np.asarray(table[393:]).any()


def test_rows_without_supervised_tokens_have_no_loss_and_no_gradient(pair):
    rows = packed_batch(393)
    rows["weights"] *= 0
    assert steps_of(pair[1], CONFIG, rows, num_steps=1)[0] == [(0.0, 0.0)]


def test_a_split_of_one_mesh_axis_over_two_dims_is_refused():
    shape = {"data": 2, "model": 4}
    with pytest.raises(ValueError, match="use a mesh axis twice"):
        RULES["fsdp_tensor"].spec(shape, (8, 8), ("heads", "mlp"))
    assert RULES["fsdp_tensor"].spec(shape, (3, 8, 12), ("embed", "mlp")) == PartitionSpec(None, ("data",), ("model",))
    assert RULES["fsdp_tensor"].spec(shape, (8, 1, 4), ("embed", "kv_heads", None))[1] is None  # a single head is whole


@pytest.mark.parametrize(("base", "layout"), SHARDED)
def test_a_sharded_run_has_the_losses_of_one_device(meshes, base, layout):
    assert len(meshes[base, "1x1"]) == 10
    np.testing.assert_allclose(meshes[base, layout], meshes[base, "1x1"], rtol=1e-5)
    assert meshes[base, "1x1"][-1] < meshes[base, "1x1"][0]


def test_a_4x8_mesh_trains_on_32_devices(place, meshes):
    output = place / "4x8"
    more = ["--mesh", "4x8", "--strategy", "fsdp", "--batch-size", "32", "--num-steps", "2"]
    run_all(place, [arguments(place, "gpt_bigcode", output, *more)], num_devices=32)
    assert np.isfinite(losses(output)).all()


def test_a_run_writes_what_it_did(whole_run):
    entry = json.loads((whole_run / "metrics.jsonl").read_text().splitlines()[0])
    assert set(entry) == {"step", "loss", "grad_norm", "lr", "tokens_per_s", "supervised_tokens_per_s", "step_s"}
    assert entry["tokens_per_s"] > entry["supervised_tokens_per_s"] > 0
    config = json.loads((whole_run / "config.json").read_text())
    assert (config["num_steps"], config["optim"]["peak_lr"]) == (10, 1e-3)
    assert [path.name for path in (whole_run / "checkpoints").iterdir()] == ["10"]
    assert list(whole_run.glob("events.out.tfevents.*"))


@pytest.mark.parametrize(("kind", "step", "status"), [("SIGTERM", 4, 75), ("SIGKILL", 7, -9)])
def test_a_run_that_was_stopped_goes_on_bitwise(place, whole_run, kind, step, status):
    output = place / kind
    args = arguments(place, "llama", output, "--num-steps", "10", "--checkpoint-every-steps", "3")
    first = run_python("-c", SIGNALLED_RUN, kind, step, *args)
    assert first.returncode == status, first.stderr[-2000:]
    if kind == "SIGTERM":
        assert first.stderr.endswith("stopped: step 5 of 10 is saved; the same command resumes\n")
    second = run_python("-m", "wizardcoder_jax.train", *args)
    assert second.returncode == 0, second.stderr[-2000:]
    assert losses(output) == losses(whole_run)
    one, other = (checkpoint_weights(run) for run in (output, whole_run))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def checkpoint_weights(run):
    return open_model(str(run)).weights(RULES["fsdp"], make_mesh("1x1"), None).model


def test_a_finished_run_is_not_trained_again(place, whole_run, monkeypatch):
    before = (whole_run / "metrics.jsonl").read_bytes()
    train.main(arguments(place, "llama", whole_run, "--num-steps", "10"))
    assert (whole_run / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_is_a_model_and_a_base_to_train_from(place, whole_run, tmp_path):
    assert (
        find_checkpoint(str(whole_run)) == find_checkpoint(str(whole_run / "checkpoints/10")) == f"{whole_run}/checkpoints/10"
    )
    opened = open_model(str(whole_run))
    assert (opened.arch.vocab_size, opened.arch.family, opened.tokenizer.eos_id) == (393, "llama", 0)
    assert opened.tokenizer.chat_prompt("Hi").endswith("### Instruction:\nHi\n\n### Response:")
    train.main(arguments(place, whole_run, tmp_path / "more", "--num-steps", "1", "--optim.peak-lr", "1e-9"))
    first = losses(tmp_path / "more")[0]
    assert first < losses(whole_run)[0] - 0.1  # it starts where the other ended


def test_a_damaged_checkpoint_is_named(whole_run, tmp_path):
    folder = tmp_path / "5"
    (folder / "params").mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "model/metadata").write_text("{")
    with pytest.raises(InputError, match=r"5 is damaged or no checkpoint"):
        open_model(str(folder))


def test_metrics_after_the_resumed_step_and_a_line_cut_off_are_dropped(tmp_path):
    lines = [json.dumps({"step": i, "loss": 1.0}) for i in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 4, "lo']))
    log = MetricsLog(str(tmp_path), 2)
    log.write(3, {"loss": 0.5})
    log.close()
    assert losses(tmp_path) == [1.0, 1.0, 0.5]


def refused(monkeypatch, capsys, args):
    """The one line with which the door refuses `args`."""
    monkeypatch.setattr(sys, "argv", ["train", *args])
    with pytest.raises(SystemExit) as stop:
        run_command(train.main)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--mesh", "2x4"], "mesh 2x4 needs 8 devices, this run has 1 (cpu); to try it on CPU set XLA_FLAGS="),
        (["--mesh", "2by4"], "mesh '2by4' is not of the form DATAxMODEL, e.g. 4x8"),
        (["--mesh", "0x4"], "mesh '0x4' is not of the form"),
        (["--mesh", "1x1x1"], "mesh '1x1x1' is not of the form"),
        (["--batch-size", "6", "--accumulation", "4"], "batch_size 6 does not divide into accumulation 4 microbatches"),
        (["--max-length", "257"], "max_length 257 exceeds the model's context of 256 positions"),
        (
            ["--data", "none*.jsonl"],
            "no training data: no file matches none*.jsonl; make it with: python -m wizardcoder_jax.evolve",
        ),
        (["--base", "/nowhere"], "no model at /nowhere"),
        (["--cache-dir", "{place}/data.jsonl/x"], "Not a directory; choose another"),
        (["--output-dir", "{place}/data.jsonl/x"], "data.jsonl/x: Not a directory; choose another output path"),
        (["--data", "{place}/bad.jsonl"], "bad.jsonl:2: malformed JSON"),
        (["--data", "{place}/empty.jsonl"], "empty.jsonl"),
    ],
)
def test_a_bad_setting_is_one_line_and_nothing_is_left(place, whole_run, monkeypatch, capsys, tmp_path, more, complaint):
    (place / "bad.jsonl").write_text('{"instruction": "a", "output": "b"}\n{"instruction": \n')
    (place / "empty.jsonl").write_text("\n")
    more = [part.replace("{place}", str(place)) for part in more]
    line = refused(monkeypatch, capsys, arguments(place, "llama", tmp_path / "out", *more))
    assert complaint in line
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(place, tmp_path):
    args = arguments(place, "llama", tmp_path / "out", "--mesh", "2x4", "--strategy", "fsdp", "--batch-size", "12")
    done = run_python("-m", "wizardcoder_jax.train", *args, num_devices=8)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: microbatches of 12 sequences (batch_size / accumulation)")
    assert list(tmp_path.iterdir()) == []


def test_the_bare_command_in_an_empty_folder_names_the_data_and_the_command_that_makes_it(tmp_path):
    done = run_python("-m", "wizardcoder_jax.train", "--mesh", "4x8", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: no training data: no file matches data/evolved*.jsonl; make it with: "
        "python -m wizardcoder_jax.evolve --seeds SEEDS.jsonl --output-dir data  (or name files with --data)\n"
    )
    assert list(tmp_path.iterdir()) == []
