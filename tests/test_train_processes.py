"""Runs of several processes: the losses of one, a single writer, and resuming with another number of processes after a kill."""

import json
import os
import random
import signal
import time

import pytest

from tests.helpers import tiny_models
from tests.helpers.processes import REPOSITORY, run_python, run_together, start_together
from wizardcoder_jax import train

STEPS = 8
REPEATS = int(os.environ.get("WIZARDCODER_KILLS", "1"))  # how often to repeat the run that is killed twice
# The train command, which also writes the example ids of each step, and kills itself at a given step.
WATCHED_RUN = """
import json, os, signal, sys
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.data.batches import Batches
from wizardcoder_jax.train import main
log, kill_at = sys.argv[1], int(sys.argv[2])
del sys.argv[1:3]
batch = Batches.batch
def watched(self, step, places=slice(None)):
    if step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("JAX_PROCESS_ID", "0") == "0":
        with open(log, "a") as file:
            file.write(json.dumps([step, self.example_ids(step).tolist()]) + "\\n")
    return batch(self, step, places)
Batches.batch = watched
run_command(main)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tiny_models.save_model_and_data(tmp_path_factory.mktemp("processes"), 48)


def arguments(place, output, *more):
    paths = ["--base", place / "llama", "--data", place / "data.jsonl", "--output-dir", output, "--cache-dir", place / "cache"]
    sizes = ["--max-length", "64", "--num-steps", STEPS, "--checkpoint-every-steps", "2", "--batch-size", "4"]
    return ["--config", REPOSITORY / "configs/tiny.py", "--strategy", "fsdp", *paths, *sizes, *more]


def losses(output):
    entries = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(1, len(entries) + 1))  # one writer: no line comes twice
    return [entry["loss"] for entry in entries]


def consumed(log):
    """Step -> example ids; repeated steps must have had the same ids."""
    found = {}
    for line in log.read_text().splitlines():
        step, ids = json.loads(line)
        assert found.setdefault(step, ids) == ids
    return found


@pytest.fixture(scope="module")
def alone(place):
    train.main(list(map(str, arguments(place, place / "alone"))))
    return losses(place / "alone")


@pytest.mark.parametrize("num", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_have_the_losses_of_one(place, alone, num):
    said = run_together(num, "-m", "wizardcoder_jax.train", *arguments(place, place / f"{num}", "--mesh", f"{num}x1"))
    assert losses(place / f"{num}") == pytest.approx(alone, rel=1e-5)
    assert sum("train: 8/8 steps" in text for text in said) == 1  # one shows the progress


@pytest.mark.slow
@pytest.mark.parametrize("repeat", range(REPEATS))
def test_a_run_resumed_after_kills_with_one_two_and_four_processes_consumes_the_same_examples(place, alone, repeat):
    whole, output = place / f"uninterrupted {repeat}", place / f"killed {repeat}"
    whole_log, log = (folder.with_suffix(".log") for folder in (whole, output))
    uninterrupted = run_python("-c", WATCHED_RUN, whole_log, -1, *arguments(place, whole))
    assert uninterrupted.returncode == 0, uninterrupted.stderr[-3000:]
    early, late = sorted(random.Random(repeat).sample(range(STEPS), 2))
    first = run_python("-c", WATCHED_RUN, log, early, *arguments(place, output))
    assert first.returncode == -signal.SIGKILL
    run = start_together(2, "-c", WATCHED_RUN, log, late, *arguments(place, output, "--mesh", "2x1"))
    for process in run:
        process.communicate(timeout=120)
    assert all(process.returncode not in (0, 75) for process in run)
    run_together(4, "-c", WATCHED_RUN, log, -1, *arguments(place, output, "--mesh", "4x1"))
    assert consumed(log) == consumed(whole_log)
    assert losses(output) == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_a_peer_killed_during_training_ends_the_others(place):
    args = arguments(place, place / "dying", "--mesh", "2x1", "--num-steps", "100000")
    run = start_together(2, "-m", "wizardcoder_jax.train", *args)
    metrics, deadline = place / "dying/metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 2) and time.monotonic() < deadline:
        time.sleep(0.2)
    run[1].kill()
    _, err = run[0].communicate(timeout=120)
    run[1].communicate()
    assert run[0].returncode not in (0, 75), err[-2000:]


def test_a_stop_signal_to_one_process_stops_all_at_the_same_step(place, alone):
    output = place / "stopped"
    args = arguments(place, output, "--mesh", "2x1", "--num-steps", "100000", "--checkpoint-every-steps", "100000")
    run = start_together(2, "-m", "wizardcoder_jax.train", *args)
    metrics, deadline = output / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 2) and time.monotonic() < deadline:
        time.sleep(0.2)
    run[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=60)[1] for process in run]
    assert [process.returncode for process in run] == [75, 75], "\n".join(text[-2000:] for text in said)
    [step] = [int(folder.name) for folder in (output / "checkpoints").iterdir()]
    assert len(losses(output)) == step
    assert all(f"step {step} of 100000 is saved" in text for text in said)


# The train command with a different learning rate in each process.
DIFFERING_RUN = """
import os, sys
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.train import main
sys.argv += ["--optim.peak-lr", os.environ["JAX_PROCESS_ID"] + ".5"]
run_command(main)
"""


def test_processes_with_different_settings_are_refused(place):
    output = place / "differing"
    for process in start_together(2, "-c", DIFFERING_RUN, *arguments(place, output, "--mesh", "2x1")):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "error: process 1 has optim.peak_lr 1.5 and process 0 has 0.5" in err
    assert not output.exists()
