"""SIGTERM at any moment of a run: finished steps are saved, the status is 75, and the next run has the same results."""

import json
import os
import random

import pytest

from tests.helpers import tiny_models
from tests.helpers.processes import REPOSITORY, run_python
from wizardcoder_jax import train

REPEATS = int(os.environ.get("WIZARDCODER_STOPS", "1"))  # how often to stop a run at each moment

# The train command, with a SIGTERM sent some milliseconds after it enters a phase for the nth time.
STOPPED_RUN = """
import os, signal, sys, threading
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.train import main
from wizardcoder_jax.training.goodput import Stopwatch
phase, nth, delay_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
del sys.argv[1:4]
enter, seen = Stopwatch.phase, []
def watched(self, name):
    seen.append(name)
    if name == phase and seen.count(name) == nth:
        threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGTERM)).start()
    return enter(self, name)
Stopwatch.phase = watched
run_command(main)
"""
MOMENTS = {  # phase, at which of its entries to stop, longest delay
    "compile": ("compile", 1, 1.0),
    "step": ("step", 5, 0.05),
    "evaluation": ("validation", 1, 0.3),
    "save": ("checkpoint", 1, 0.05),
    "shutdown": ("checkpoint", -1, 0.05),
}
STEPS, EVERY = 8, 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tiny_models.save_model_and_data(tmp_path_factory.mktemp("stops"), 60)


def arguments(place, output):
    paths = ["--base", place / "llama", "--data", place / "data.jsonl", "--output-dir", output, "--cache-dir", place / "cache"]
    sizes = ["--max-length", "64", "--num-steps", STEPS, "--checkpoint-every-steps", EVERY, "--keep-checkpoints", "2"]
    measured = ["--validation.fraction", "0.2", "--validation.every-steps", EVERY]
    return list(map(str, ["--config", REPOSITORY / "configs/tiny.py", *paths, *sizes, *measured]))


def lines(output):
    entries = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [(entry["step"], entry["loss"], entry.get("validation_loss")) for entry in entries]


@pytest.fixture(scope="module")
def undisturbed(place):
    train.main(arguments(place, place / "whole"))
    entries = lines(place / "whole")
    assert [step for step, _, _ in entries] == list(range(1, STEPS + 1))
    assert [step for step, _, measured in entries if measured is not None] == [4, 8]
    return entries


@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize("moment", [name if name == "step" else pytest.param(name, marks=pytest.mark.slow) for name in MOMENTS])
def test_a_run_asked_to_stop_saves_exits_with_75_and_resumes_with_the_same_results(place, undisturbed, moment, repeat):
    phase, nth, longest_s = MOMENTS[moment]
    nth = nth if nth > 0 else 6  # a save and a wait at steps 4 and 8, then at the end a save and a wait
    output, delay_s = place / f"{moment} {repeat}", random.Random(repeat).uniform(0, longest_s)
    stopped = run_python("-c", STOPPED_RUN, phase, nth, delay_s, *arguments(place, output))
    assert stopped.returncode == 75, (moment, delay_s, stopped.stderr[-3000:])
    assert "stopped: " in stopped.stderr.splitlines()[-1]
    train.main(arguments(place, output))
    assert lines(output) == undisturbed
