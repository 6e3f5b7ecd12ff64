"""Attention and activation noise on a 2x4 mesh against one device. One process with 8 devices runs several cases."""

import json

import pytest

from tests.helpers.processes import REPOSITORY, run_python

NOISE = {"dropout": 0.2, "neftune_alpha": 5.0, "z_loss": 1e-2, "label_smoothing": 0.1}
WINDOW = "grouped-query, rope, window"
DEFAULT = {  # architecture, attention on the mesh, loss options
    "splash": (WINDOW, "splash", {}),
    "dropout, noise, z-loss and label smoothing": (WINDOW, "dot", NOISE),
}
SLOW = {
    "splash, multi-query": ("multi-query, learned", "splash", {}),
    "splash, multi-head": ("multi-head, learned", "splash", {}),
}


def assert_meshes_equal_one_device(cases, strategies):
    args = [json.dumps(list(cases.values())), *strategies]
    done = run_python(REPOSITORY / "tests/helpers/splash_cases.py", *args, num_devices=8)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    expected = [(name, strategy) for name, _, _ in cases.values() for strategy in strategies]
    assert [(step["name"], step["strategy"]) for step in steps] == expected
    for step in steps:
        assert step["loss"][0] == pytest.approx(step["loss"][1], abs=1e-5)
        assert step["error"] < 1e-5
        assert step["largest"] > 0.03


def test_splash_and_activation_noise_on_2x4_equal_matrix_products_on_one_device():
    assert_meshes_equal_one_device(DEFAULT, ["fsdp_tensor"])


@pytest.mark.slow
def test_splash_of_all_architectures_on_2x4_equals_matrix_products_on_one_device():
    assert_meshes_equal_one_device({**DEFAULT, **SLOW}, ["fsdp", "fsdp_tensor"])
