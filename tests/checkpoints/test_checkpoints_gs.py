import json

import pytest

from tests.helpers.object_store import emulated_bucket
from tests.helpers.processes import run_python

# Saves, damages and restores checkpoints on gs://. A separate program, because the store's address is read only once.
PROGRAM = """
import json, sys
from tests.helpers.tiny_states import CARD, bits_of, items, shapes_of
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.core.filesystem import remote_path
from wizardcoder_jax.checkpoints.manager import CheckpointManager
from wizardcoder_jax.checkpoints.reader import find_checkpoint, load_params

def names(folder):
    return sorted(path.name for path in remote_path(folder).iterdir())

def parts(step):
    return {**items(step), "frozen": {"f": items(1)["params"]["w"]}}

def main(_):
    run = sys.argv[1]
    with CheckpointManager(run, 2, keep_every_steps=2, background=True) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, CARD, parts(step))
    print(json.dumps(names(run + "/checkpoints")))
    remote_path(run + "/checkpoints/5/model/metadata").write_text("{}")
    remote_path(run + "/checkpoints/9/params/d/unfinished").write_text("killed while it was written")
    with CheckpointManager(run, 9) as checkpoints:
        step, found = checkpoints.restore_latest(shapes_of(parts(0)))
        checkpoints.save(5, CARD, parts(5))
    print(json.dumps([step, bits_of(found) == bits_of(parts(4))]))
    print(json.dumps([name for name in names(run + "/checkpoints") if name != "9"]))
    step_dir, whole = find_checkpoint(run), {**parts(5)["params"], **parts(5)["frozen"]}
    print(json.dumps([step_dir, bits_of(load_params(step_dir, shapes_of(whole))) == bits_of(whole)]))

run_command(main)
"""


@pytest.fixture
def bucket():
    with emulated_bucket():
        yield


def test_checkpoints_in_an_object_store_work_as_on_disk(bucket):
    done = run_python("-W", "ignore", "-c", PROGRAM, "gs://bucket/run", timeout_s=120)
    assert done.returncode == 0, done.stderr[-3000:]
    kept, restored, after, loaded = map(json.loads, done.stdout.splitlines())
    assert kept == ["2", "4", "5"]
    assert restored == [4, True]
    assert after == ["2", "4", "5", "5.damaged"]
    assert loaded == ["gs://bucket/run/checkpoints/5", True]
    assert "gs://bucket/run/checkpoints/5 is damaged" in done.stderr


def test_a_missing_bucket_is_one_error_line(bucket):
    done = run_python("-W", "ignore", "-c", PROGRAM, "gs://nowhere/run", timeout_s=120)
    assert done.returncode == 2, done.stderr[-3000:]
    [complaint] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert complaint.startswith("error: gs://nowhere/run/checkpoints cannot be written (")
