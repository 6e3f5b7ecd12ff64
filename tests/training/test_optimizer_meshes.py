import json

import numpy as np
import pytest

from tests.helpers.processes import REPOSITORY, run_python


@pytest.fixture(scope="module")
def runs():
    done = run_python(REPOSITORY / "tests/helpers/optimizer_meshes.py", num_devices=8, timeout_s=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for line in done.stdout.splitlines():
        found.setdefault(json.loads(line)["name"], []).append(json.loads(line))
    assert {name: len(all_runs) for name, all_runs in found.items()} == {"adamw": 2, "muon": 3, "adafactor": 2}
    return found


@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
def test_an_optimizer_takes_the_same_steps_on_every_mesh_and_its_state_stays_where_it_was(runs, name):
    """The program refuses a state that lies elsewhere than the one that it was compiled for."""
    alone, *others = runs[name]
    assert alone["losses"][2] < alone["losses"][0] - 0.05
    for other in others:
        np.testing.assert_allclose(other["losses"], alone["losses"], rtol=1e-5)


def test_moments_in_8_bits_are_split_as_their_weights_are(runs):
    [run] = runs["adamw"][1:]
    assert run["codes"] == run["scales"] == run["weights"]
    assert run["weights"].count(8) > 3


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_an_update_exchanges_no_weights_gradients_or_moments(runs, name):
    for run in runs[name][1:]:
        assert run["moved"] == []


def test_muon_brings_no_matrix_together(runs):
    """Parts of matrices change hands, an eighth of them on each device; what is summed is of the short dim alone."""
    for run in runs["muon"][1:]:
        assert {kind for kind, _ in run["moved"]} <= {"all-to-all", "all-reduce", "collective-permute"}
        for kind, shape in run["moved"]:
            assert shape == [256, 256] if kind == "all-reduce" else np.prod(shape) <= 3 * 256 * 512 / 8
