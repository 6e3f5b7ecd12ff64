"""The train command: output files, resuming, meshes and error messages."""

import json
import sys

import jax
import numpy as np
import pytest

from tests.helpers import tiny_models
from tests.helpers.processes import REPOSITORY, run_python
from wizardcoder_jax import train
from wizardcoder_jax.checkpoints.reader import find_checkpoint
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.training.metrics_log import MetricsLog

TINY = REPOSITORY / "configs/tiny.py"
FAMILIES = {
    "gpt_bigcode": lambda **changes: tiny_models.gpt_bigcode(vocab_size=393, **changes),
    "llama": lambda **changes: tiny_models.llama(vocab_size=393, tie_word_embeddings=True, **changes),
}
LAYOUTS = {"1x1": ("1x1", "fsdp"), "2x4 tensor": ("2x4", "fsdp_tensor"), "2x4 fsdp": ("2x4", "fsdp")}
SHARDED = [*((base, layout) for base in FAMILIES for layout in ("2x4 tensor", "2x4 fsdp")), ("wide", "2x4 tensor")]
# Trains several times in one process, and prints whether TensorFlow was imported.
MANY_RUNS = """
import json, sys
from wizardcoder_jax.train import main
for arguments in json.load(open(sys.argv[1])):
    main(arguments)
print("tensorflow" in sys.modules)
"""
# Runs the train command, and sends it a signal right after a line of metrics.jsonl has been written.
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
    """Return a folder with data, a cache and two tiny models (one with 49153 tokens), shared by all tests below."""
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
def whole_run(place):
    """Train ten steps without interruption. This also fills the data cache for all later runs."""
    output = place / "whole"
    train.main(arguments(place, "llama", output, "--num-steps", "10"))
    return output


def losses_on_meshes(place, runs):
    """Train ten steps for each (base, layout) in `runs`, in one process with 8 devices; return the losses."""
    outputs = {run: place / "mesh {} {}".format(*run) for run in runs}
    commands = []
    for (base, layout), output in outputs.items():
        mesh, strategy = LAYOUTS[layout]
        more = ["--mesh", mesh, "--strategy", strategy, "--num-steps", "10", "--checkpoint-every-steps", "100"]
        commands.append(arguments(place, base, output, *more))
    run_all(place, commands, num_devices=8)
    return {run: losses(output) for run, output in outputs.items()}


def test_a_sharded_run_has_the_losses_of_one_device_and_a_warm_cache_needs_no_tensorflow(place, whole_run):
    output = place / "sharded"
    more = ["--mesh", "2x4", "--strategy", "fsdp_tensor", "--num-steps", "10"]
    assert run_all(place, [arguments(place, "llama", output, *more)], num_devices=8) == "False"
    np.testing.assert_allclose(losses(output), losses(whole_run), rtol=1e-5)
    assert losses(output)[-1] < losses(output)[0]


@pytest.fixture(scope="module")
def meshes(place, whole_run):
    """Train each model for ten steps on one device, and on a 2x4 mesh with each strategy."""
    return losses_on_meshes(place, [*SHARDED, *((base, "1x1") for base in (*FAMILIES, "wide"))])


@pytest.mark.slow
@pytest.mark.parametrize(("base", "layout"), SHARDED)
def test_every_family_has_the_losses_of_one_device_on_every_mesh(meshes, base, layout):
    assert len(meshes[base, "1x1"]) == 10
    np.testing.assert_allclose(meshes[base, layout], meshes[base, "1x1"], rtol=1e-5)
    assert meshes[base, "1x1"][-1] < meshes[base, "1x1"][0]


@pytest.mark.slow
def test_a_4x8_mesh_trains_on_32_devices(place, whole_run):
    output = place / "4x8"
    more = ["--mesh", "4x8", "--strategy", "fsdp", "--batch-size", "32", "--num-steps", "2"]
    run_all(place, [arguments(place, "gpt_bigcode", output, *more)], num_devices=32)
    assert np.isfinite(losses(output)).all()


def test_a_run_writes_its_metrics_settings_checkpoint_and_events(whole_run):
    entry = json.loads((whole_run / "metrics.jsonl").read_text().splitlines()[0])
    assert set(entry) == {"step", "loss", "grad_norm", "lr", "tokens_per_s", "supervised_tokens_per_s", "step_s"}
    assert entry["tokens_per_s"] > entry["supervised_tokens_per_s"] > 0
    config = json.loads((whole_run / "config.json").read_text())
    assert (config["num_steps"], config["optim"]["peak_lr"]) == (10, 1e-3)
    assert [path.name for path in (whole_run / "checkpoints").iterdir()] == ["10"]
    assert list(whole_run.glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("kind", "step", "status"), [pytest.param("SIGTERM", 4, 75, marks=pytest.mark.slow), ("SIGKILL", 7, -9)]
)
def test_a_run_that_was_stopped_resumes_bit_for_bit(place, whole_run, kind, step, status):
    output = place / kind
    args = arguments(place, "llama", output, "--num-steps", "10", "--checkpoint-every-steps", "3")
    first = run_python("-c", SIGNALLED_RUN, kind, step, *args)
    assert first.returncode == status, first.stderr[-2000:]
    if kind == "SIGTERM":
        assert first.stderr.endswith("stopped: step 5 of 10 is saved; the same command resumes\n")
    train.main(args)
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
    assert first < losses(whole_run)[0] - 0.1  # training starts from the weights of the first run


def test_the_error_for_a_damaged_checkpoint_names_it(whole_run, tmp_path):
    folder = tmp_path / "5"
    (folder / "params").mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "model/metadata").write_text("{")
    with pytest.raises(InputError, match=r"5 is damaged or not a checkpoint"):
        open_model(str(folder))


def test_metrics_after_the_resumed_step_and_a_truncated_line_are_dropped(tmp_path):
    lines = [json.dumps({"step": i, "loss": 1.0}) for i in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 4, "lo']))
    log = MetricsLog(str(tmp_path), 2)
    log.write(3, {"loss": 0.5})
    log.close()
    assert losses(tmp_path) == [1.0, 1.0, 0.5]


def refused(monkeypatch, capsys, args):
    """Run the command with invalid `args` and return its error message."""
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
        (["--batch-size", "6", "--accumulation", "4"], "batch_size 6 is not a multiple of accumulation 4"),
        (["--max-length", "257"], "max_length 257 exceeds the model's context of 256 tokens"),
        (
            ["--data", "none*.jsonl"],
            "no training data: no file matches none*.jsonl; generate it with: python -m wizardcoder_jax.evolve",
        ),
        (["--base", "/nowhere"], "no model at /nowhere"),
        (["--cache-dir", "{place}/data.jsonl/x"], "Not a directory; choose another"),
        (["--output-dir", "{place}/data.jsonl/x"], "data.jsonl/x: Not a directory; choose another output path"),
        (["--data", "{place}/bad.jsonl"], "bad.jsonl:2: malformed JSON"),
        (["--data", "{place}/empty.jsonl"], "empty.jsonl"),
    ],
)
def test_a_bad_setting_is_one_line_and_leaves_no_files(place, whole_run, monkeypatch, capsys, tmp_path, more, complaint):
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


def test_the_bare_command_in_an_empty_folder_names_the_missing_data_and_the_command_that_makes_it(tmp_path):
    done = run_python("-m", "wizardcoder_jax.train", "--mesh", "4x8", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: no training data: no file matches data/evolved*.jsonl; generate it with: "
        "python -m wizardcoder_jax.evolve --seeds SEEDS.jsonl --output-dir data  (or pass files with --data)\n"
    )
    assert list(tmp_path.iterdir()) == []
