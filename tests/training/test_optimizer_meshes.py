import functools
import json

import numpy as np
import pytest

from tests.helpers.processes import REPOSITORY, run_python

NUM_RUNS = {"adamw": 2, "muon": 3, "adafactor": 2}
ADAMW, MUON, ADAFACTOR = "adamw", *(pytest.param(name, marks=pytest.mark.slow) for name in ("muon", "adafactor"))


@functools.cache
def runs_of(name):
    """Return the results of one optimizer on several meshes; the first result is that of one device."""
    done = run_python(REPOSITORY / "tests/helpers/optimizer_meshes.py", name, num_devices=8, timeout_s=600)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [run["name"] for run in runs] == [name] * NUM_RUNS[name]
    return runs


@pytest.mark.parametrize("name", [ADAMW, MUON, ADAFACTOR])
def test_an_optimizer_takes_the_same_steps_on_every_mesh_and_its_state_keeps_its_sharding(name):
    """The compiled program fails if the sharding of the state has changed after a step."""
    alone, *others = runs_of(name)
    assert alone["losses"][2] < alone["losses"][0] - 0.05
    for other in others:
        np.testing.assert_allclose(other["losses"], alone["losses"], rtol=1e-5)


def test_moments_in_8_bits_are_sharded_like_their_weights():
    [run] = runs_of("adamw")[1:]
    assert run["codes"] == run["scales"] == run["weights"]
    assert run["weights"].count(8) > 3


@pytest.mark.parametrize("name", [ADAMW, ADAFACTOR])
def test_an_update_exchanges_no_weights_gradients_or_moments(name):
    for run in runs_of(name)[1:]:
        assert run["moved"] == []


@pytest.mark.slow
def test_muon_gathers_no_matrix():
    """Devices exchange at most eighths of matrices, and all-reduces sum only products of the short dim."""
    for run in runs_of("muon")[1:]:
        assert {kind for kind, _ in run["moved"]} <= {"all-to-all", "all-reduce", "collective-permute"}
        for kind, shape in run["moved"]:
            assert shape == [256, 256] if kind == "all-reduce" else np.prod(shape) <= 3 * 256 * 512 / 8
