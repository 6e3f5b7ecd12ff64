"""evolve killed at random moments until it ends: nothing is lost, and no answer in the ledger is paid for twice."""

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

pytestmark = pytest.mark.slow

NUM_KILLS = int(os.environ.get("WIZARDCODER_KILLS", "5"))
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
    """Return the bytes of all files of a run except the ledger, whose rows are in the order of their arrival."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if is_output(path)}


def is_output(path):
    return path.is_file() and path.name != "config.json" and not path.name.startswith("ledger.sqlite")


def prompts_in_ledger(folder):
    if not (folder / "ledger.sqlite").exists():
        return Counter()
    connection = sqlite3.connect(folder / "ledger.sqlite")
    try:
        rows = connection.execute("SELECT messages FROM calls").fetchall()
    except sqlite3.OperationalError:  # killed before the table was created
        rows = []
    finally:
        connection.close()
    return Counter(json.loads(messages)[-1]["content"] for (messages,) in rows)


def kill_at_a_random_moment(command, teacher, draw, num_expected, attempt):
    """Start the run and kill it: after a random number of requests, in its first second, or as it writes its results."""
    num_before = len(teacher.prompts())
    num_wanted = num_before + draw.randint(1, 2 * num_expected // NUM_KILLS)
    moment = "end" if attempt >= NUM_KILLS - 1 - NUM_KILLS // 5 else "start" if attempt % 5 == 1 else "requests"
    process = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    if moment == "start":
        time.sleep(draw.uniform(0, 1))
    else:
        while process.poll() is None and (moment == "end" or len(teacher.prompts()) < num_wanted):
            if moment == "end" and len(teacher.prompts()) >= num_expected:
                break
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.15))
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_run_killed_at_random_moments_has_the_results_of_one_that_was_not_and_pays_once(arguments, teacher, tmp_path):
    assert run_python(*arguments(tmp_path / "whole")).returncode == 0
    expected = Counter(teacher.prompts())
    teacher.clear_log()
    draw, killed = random.Random(0), tmp_path / "killed"
    for attempt in range(NUM_KILLS + 1):
        num_before, in_ledger = len(teacher.prompts()), prompts_in_ledger(killed)
        if attempt < NUM_KILLS:
            kill_at_a_random_moment(arguments(killed), teacher, draw, expected.total(), attempt)
        else:
            assert run_python(*arguments(killed)).returncode == 0
        sent = Counter(teacher.prompts()[num_before:])
        assert not (in_ledger + sent) - expected  # no call in the ledger is repeated
        evolved = {answer(prompt)[0] for prompt in prompts_in_ledger(killed)}
        assert {
            prompt for prompt in sent if not prompt.startswith(TEMPLATES)
        } <= evolved  # used only after it was in the ledger
    assert len(teacher.prompts()) <= expected.total() + NUM_KILLS * concurrent_steps(CONCURRENCY)
    assert prompts_in_ledger(killed) == expected
    assert outputs(killed) == outputs(tmp_path / "whole")
    assert {path.name for path in outputs(killed)} >= {"evolved.jsonl", "rejected.jsonl", "summary.json", "data_card.md"}
