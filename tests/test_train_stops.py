"""SIGTERM at any moment of a run: what was done is there, the status is 75, and the next run goes on as if nothing had been."""

import json
import os
import random
import time

import pytest

from tests.helpers import tiny_models
from tests.helpers.processes import REPOSITORY, run_python

REPEATS = int(os.environ.get("WIZARDCODER_STOPS", "1"))  # of each moment; 10 were run for the README

# The train door; at the nth time that it enters a phase a SIGTERM follows after some milliseconds.
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
MOMENTS = {  # phase, which time it is entered, longest delay
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
    return ["--config", REPOSITORY / "configs/tiny.py", *paths, *sizes, *measured]


def lines(output):
    told = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [(entry["step"], entry["loss"], entry.get("validation_loss")) for entry in told]


@pytest.fixture(scope="module")
def undisturbed(place):
    done = run_python("-m", "wizardcoder_jax.train", *arguments(place, place / "whole"))
    assert done.returncode == 0, done.stderr[-3000:]
    told = lines(place / "whole")
    assert [step for step, _, _ in told] == list(range(1, STEPS + 1))
    assert [step for step, _, measured in told if measured is not None] == [4, 8]
    return told


@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_asked_to_stop_saves_leaves_with_75_and_resumes_as_if_it_had_not_been(place, undisturbed, moment, repeat):
    phase, nth, longest_s = MOMENTS[moment]
    nth = nth if nth > 0 else 6  # a save and a wait at steps 4 and 8, then at the end a save and a wait
    output, delay_s = place / f"{moment} {repeat}", random.Random(repeat).uniform(0, longest_s)
    began = time.monotonic()
    stopped = run_python("-c", STOPPED_RUN, phase, nth, delay_s, *arguments(place, output))
    assert time.monotonic() - began < 60  # start and compilation of the run included; the stop itself has 30 s
    assert stopped.returncode == 75, (moment, delay_s, stopped.stderr[-3000:])
    assert "stopped: " in stopped.stderr.splitlines()[-1]
    resumed = run_python("-m", "wizardcoder_jax.train", *arguments(place, output))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert lines(output) == undisturbed
