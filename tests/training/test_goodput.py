import json
import time

import pytest

from tests.helpers.processes import run_python
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.training.goodput import GoodputLog, Stopwatch, process_start_s

# A process that is in a phase but for a moment.
BUSY = """
import time
time.sleep(0.3)
from wizardcoder_jax.training.goodput import GoodputLog, Stopwatch
import sys
watch = Stopwatch()
with watch.phase("load"):
    log = GoodputLog(sys.argv[1], watch, 0)
    time.sleep(0.5)
with watch.phase("step"):
    time.sleep(0.5)
    log.record_step(0.5)
print(log.save().accounted)
"""


def test_the_time_of_a_phase_within_another_is_the_inner_ones():
    watch = Stopwatch()
    with watch.phase("outer"):
        time.sleep(0.05)
        with watch.phase("inner"):
            time.sleep(0.1)
        time.sleep(0.05)
    seconds = watch.seconds()
    assert 0.1 <= seconds["outer"] < 0.19 and 0.1 <= seconds["inner"] < 0.19
    assert sum(seconds.values()) == pytest.approx(watch.wall_s, abs=0.01)


def test_an_error_ends_its_phase():
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.phase("step"):
        raise KeyError
    time.sleep(0.05)
    assert watch.seconds()["other"] >= 0.05


def test_time_counts_from_the_start_of_the_process_and_nearly_all_is_accounted_for(tmp_path):
    began = time.time()
    done = run_python("-c", BUSY, tmp_path)
    took_s = time.time() - began
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "goodput.json").read_text())["runs"]
    assert float(done.stdout) >= 0.98
    assert abs(run["started_s"] - began) < 0.5
    assert run["phases_s"]["start"] >= 0.3 and 1.3 <= run["wall_s"] <= took_s + 0.1
    assert process_start_s() < time.time()


def test_steps_that_are_done_again_are_lost_and_runs_add_up(tmp_path):
    for first, steps in ((0, [1.0, 2.0, 3.0, 4.0]), (2, [3.5])):  # killed after step 4, the last checkpoint is of step 2
        log = GoodputLog(str(tmp_path), Stopwatch(), first)
        for step_s in steps:
            log.record_step(step_s)
        goodput = log.save()
    assert (goodput.productive_s, goodput.lost_s) == (1 + 2 + 3.5, 3 + 4)
    again = GoodputLog(str(tmp_path), Stopwatch(), 1).save()  # an older checkpoint still: step 2 and step 3 are lost too
    assert (again.productive_s, again.lost_s) == (1.0, 7 + 2 + 3.5)
    written = json.loads((tmp_path / "goodput.json").read_text())
    assert len(written["runs"]) == 3
    assert written["wall_s"] == pytest.approx(sum(run["wall_s"] for run in written["runs"]))
    assert written["goodput"] == pytest.approx(1.0 / written["wall_s"])
    assert len(json.loads((tmp_path / "goodput.json").read_text())["runs"][0]["steps_s"]) == 1


def test_a_run_anew_forgets_the_earlier_ones(tmp_path):
    GoodputLog(str(tmp_path), Stopwatch(), 0).save()
    GoodputLog(str(tmp_path), Stopwatch(), 0, overwrite=True).save()
    assert len(json.loads((tmp_path / "goodput.json").read_text())["runs"]) == 1


def test_a_file_that_is_something_else_is_named(tmp_path):
    (tmp_path / "goodput.json").write_text("{}")
    with pytest.raises(InputError, match=r"goodput\.json has no list of runs; remove the file"):
        GoodputLog(str(tmp_path), Stopwatch(), 0)
