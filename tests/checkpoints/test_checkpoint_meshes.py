import json
import os

from tests.helpers.processes import REPOSITORY, run_python, start_together

PROGRAM = REPOSITORY / "tests/helpers/checkpoint_meshes.py"


def results(*args):
    done = run_python(PROGRAM, *args, num_devices=8)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_state_moves_between_numbers_of_devices_bit_for_bit(tmp_path):
    found = results("chain", tmp_path)
    assert [hop["devices"] for hop in found] == [4, 2, 1, 8, 8]
    assert all(hop["split"] and hop["wrong"] == [] for hop in found), found


def test_a_checksum_does_not_depend_on_the_sharding_and_gathers_no_array():
    [found] = results("program")
    assert found["sizes"] and max(found["sizes"]) <= 8
    assert found["lines"] == [found["whole"]]


def test_two_processes_save_and_fall_back_together(tmp_path):
    run = start_together(2, PROGRAM, "both", tmp_path / "run", num_devices=4)
    outputs = [process.communicate(timeout=200) for process in run]
    assert [process.returncode for process in run] == [0, 0], outputs
    assert [json.loads(out.splitlines()[-1]) for out, _ in outputs] == [{"step": 2, "wrong": []}] * 2
    assert sum("trying an earlier checkpoint" in stderr for _, stderr in outputs) == 1, "only one process reports it"
    assert sorted(os.listdir(tmp_path / "run/checkpoints")) == ["2", "3", "3.damaged"]
    assert os.listdir(tmp_path / "run/frozen") == ["0"]
