import json
import time
import types

import pytest

from tests.helpers.processes import run_python
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.training.goodput import GoodputLog, Stopwatch, process_start_s

# A program that spends almost all its time in named phases.
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


@pytest.fixture
def clock(monkeypatch):
    """A virtual clock: clock.sleep(s) advances time.monotonic."""
    now = [time.monotonic()]
    monkeypatch.setattr("wizardcoder_jax.training.goodput.time.monotonic", lambda: now[0])
    return types.SimpleNamespace(sleep=lambda s: now.__setitem__(0, now[0] + s))


def test_time_in_nested_phases_belongs_to_the_inner_phase(clock):
    watch = Stopwatch()
    with watch.phase("outer"):
        clock.sleep(2.0)
        with watch.phase("inner"):
            clock.sleep(5.0)
        clock.sleep(1.0)
    seconds = watch.seconds()
    assert (seconds["outer"], seconds["inner"]) == (pytest.approx(3.0), pytest.approx(5.0))
    assert sum(seconds.values()) == pytest.approx(watch.wall_s)


def test_an_error_ends_its_phase(clock):
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.phase("step"):
        raise KeyError
    clock.sleep(4.0)
    assert watch.seconds()["other"] == pytest.approx(4.0)


def test_time_counts_from_the_start_of_the_process_and_nearly_all_belongs_to_a_phase(tmp_path):
    began = time.time()
    done = run_python("-c", BUSY, tmp_path)
    took_s = time.time() - began
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "goodput.json").read_text())["runs"]
    assert float(done.stdout) >= 0.98
    assert abs(run["started_s"] - began) < 0.5
    assert run["phases_s"]["start"] >= 0.3 and 1.3 <= run["wall_s"] <= took_s + 0.1
    assert process_start_s() < time.time()


def test_repeated_steps_are_lost_and_starts_add_up(tmp_path):
    for first, steps in ((0, [1.0, 2.0, 3.0, 4.0]), (2, [3.5])):  # killed after step 4, the last checkpoint is of step 2
        log = GoodputLog(str(tmp_path), Stopwatch(), first)
        for step_s in steps:
            log.record_step(step_s)
        goodput = log.save()
    assert (goodput.productive_s, goodput.lost_s) == (1 + 2 + 3.5, 3 + 4)
    again = GoodputLog(str(tmp_path), Stopwatch(), 1).save()  # restored from step 1: steps 2 and 3 are lost too
    assert (again.productive_s, again.lost_s) == (1.0, 7 + 2 + 3.5)
    written = json.loads((tmp_path / "goodput.json").read_text())
    assert len(written["runs"]) == 3
    assert written["wall_s"] == pytest.approx(sum(run["wall_s"] for run in written["runs"]))
    assert written["goodput"] == pytest.approx(1.0 / written["wall_s"])
    assert len(json.loads((tmp_path / "goodput.json").read_text())["runs"][0]["steps_s"]) == 1


def test_overwriting_a_run_discards_earlier_entries(tmp_path):
    GoodputLog(str(tmp_path), Stopwatch(), 0).save()
    GoodputLog(str(tmp_path), Stopwatch(), 0, overwrite=True).save()
    assert len(json.loads((tmp_path / "goodput.json").read_text())["runs"]) == 1


def test_a_file_of_another_format_is_an_error(tmp_path):
    (tmp_path / "goodput.json").write_text("{}")
    with pytest.raises(InputError, match=r"goodput\.json is malformed .*; delete the file"):
        GoodputLog(str(tmp_path), Stopwatch(), 0)
