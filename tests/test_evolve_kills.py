"""evolve killed at random moments, until it ends: nothing is lost, and nothing is paid for twice that had been written."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.helpers.loopback_teacher import answer
from tests.helpers.processes import REPOSITORY, run_python
from tests.helpers.teacher_process import TeacherProcess
from wizardcoder_jax.llm_client.ordered_map import concurrent_steps

KILLS = int(os.environ.get("WIZARDCODER_KILLS", "5"))  # 20 were run for the README
TEMPLATES = ("Please increase the difficulty", "Here are two Instructions")
NUM_SEEDS, ROUNDS, CONCURRENCY = 60, 2, 16


@pytest.fixture
def teacher(tmp_path):
    with TeacherProcess(tmp_path / "requests.log", 0.02) as teacher:
        yield teacher


@pytest.fixture
def arguments(tmp_path, teacher):
    seeds = tmp_path / "seeds.jsonl"
    lines = [{"instruction": f"Write function number {i}.", "output": f"f{i}"} for i in range(NUM_SEEDS)]
    seeds.write_text("".join(json.dumps(line) + "\n" for line in lines))
    named = ["--seeds", seeds, "--rounds", ROUNDS, "--exports", "alpaca", "parquet"]
    named += ["--teacher.base-url", teacher.base_url, "--teacher.concurrency", CONCURRENCY]
    return lambda folder: ["-m", "wizardcoder_jax.evolve", *map(str, named), "--output-dir", str(folder)]


def outputs(folder):
    """The bytes of all that a run makes; the ledger's rows are in the order in which they came."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if is_output(path)}


def is_output(path):
    return path.is_file() and path.name != "config.json" and not path.name.startswith("ledger.sqlite")


def prompts_in_ledger(folder):
    if not (folder / "ledger.sqlite").exists():
        return Counter()
    connection = sqlite3.connect(folder / "ledger.sqlite")
    try:
        rows = connection.execute("SELECT messages FROM calls").fetchall()
    except sqlite3.OperationalError:  # killed before there was a table
        rows = []
    finally:
        connection.close()
    return Counter(json.loads(messages)[-1]["content"] for (messages,) in rows)


def kill_at_a_random_moment(command, teacher, draw, num_expected, life):
    """Starts the run and kills it: after so many more requests, or in its first second, or as it writes its results."""
    already = len(teacher.prompts())
    wanted = already + draw.randint(1, 2 * num_expected // KILLS)
    kind = "end" if life >= KILLS - 1 - KILLS // 5 else "start" if life % 5 == 1 else "requests"
    process = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    if kind == "start":
        time.sleep(draw.uniform(0, 1))
    else:
        while process.poll() is None and (kind == "end" or len(teacher.prompts()) < wanted):
            if kind == "end" and len(teacher.prompts()) >= num_expected:
                break
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.15))
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_run_killed_at_random_moments_ends_as_one_that_was_not_and_pays_once(arguments, teacher, tmp_path):
    assert run_python(*arguments(tmp_path / "whole")).returncode == 0
    asked = Counter(teacher.prompts())
    teacher.forget()
    draw, killed = random.Random(0), tmp_path / "killed"
    for life in range(KILLS + 1):
        num_before, written = len(teacher.prompts()), prompts_in_ledger(killed)
        if life < KILLS:
            kill_at_a_random_moment(arguments(killed), teacher, draw, asked.total(), life)
        else:
            assert run_python(*arguments(killed)).returncode == 0
        asked_now = Counter(teacher.prompts()[num_before:])
        assert not (written + asked_now) - asked  # each call that was written is not made again
        evolved = {answer(prompt)[0] for prompt in prompts_in_ledger(killed)}
        assert {prompt for prompt in asked_now if not prompt.startswith(TEMPLATES)} <= evolved  # used once it was written
    assert len(teacher.prompts()) <= asked.total() + KILLS * concurrent_steps(CONCURRENCY)
    assert prompts_in_ledger(killed) == asked
    assert outputs(killed) == outputs(tmp_path / "whole")
    assert {path.name for path in outputs(killed)} >= {"evolved.jsonl", "rejected.jsonl", "summary.json", "data_card.md"}
