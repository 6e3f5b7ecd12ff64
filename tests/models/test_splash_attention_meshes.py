import json

import pytest

from tests.helpers.processes import REPOSITORY, run_python

ADDED = {"dropout": 0.2, "neftune_alpha": 5.0, "z_loss": 1e-2, "label_smoothing": 0.1}


def assert_meshes_equal_one_device(name, kind, expected_kind, added):
    arguments = (name, kind, expected_kind, json.dumps(added))
    done = run_python(REPOSITORY / "tests/helpers/splash_cases.py", *arguments, num_devices=8)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [step["strategy"] for step in found] == ["fsdp", "fsdp_tensor"]
    for step in found:
        assert step["loss"][0] == pytest.approx(step["loss"][1], abs=1e-5)
        assert step["error"] < 1e-5
        assert step["largest"] > 0.03


@pytest.mark.parametrize("name", ["multi-query, learned", "multi-head, learned", "grouped-query, rope, window"])
def test_splash_on_2x4_equals_the_dot_product_on_one_device(name):
    assert_meshes_equal_one_device(name, "splash", "dot", {})


def test_dropout_noise_z_loss_and_label_smoothing_are_the_same_on_2x4_and_on_one_device():
    assert_meshes_equal_one_device("grouped-query, rope, window", "dot", "dot", ADDED)
