"""Properties of the train step on TPUs. The steps have full width and are compiled ahead of time, not run."""

import functools
import json
import subprocess
import sys

import pytest

from tests.helpers.processes import REPOSITORY
from wizardcoder_jax.planning.compile_jobs import compiler_environment

STARCODER = "bigcode/starcoder"
STEPS = [("bigcode/starcoderbase-1b", 4), (STARCODER, 4), (STARCODER, 40)]
pytestmark = pytest.mark.slow  # a compilation takes one to three minutes of CPU time


@functools.cache
def compiled_step(hub_id, num_layers):
    command = [sys.executable, str(REPOSITORY / "tests/helpers/compiled_steps.py"), hub_id, str(num_layers)]
    done = subprocess.run(command, env=compiler_environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("hub_id", "num_layers"), STEPS)
def test_attention_is_the_kernel_forward_and_backward(hub_id, num_layers):
    kernels = compiled_step(hub_id, num_layers)["kernels"]
    splash = {name: num_runs for name, num_runs in kernels.items() if name.startswith("splash")}
    assert sum("fwd" in name for name in splash) == 1
    assert sum("dkv" in name for name in splash) == 1
    assert all(num_runs % num_layers == 0 for num_runs in splash.values())


@pytest.mark.parametrize(("hub_id", "num_layers"), STEPS)
def test_logits_never_exist_for_all_tokens_at_once(hub_id, num_layers):
    step = compiled_step(hub_id, num_layers)
    assert 0 < step["tokens_with_logits"] <= step["tokens"] / 4


@pytest.mark.parametrize(("hub_id", "num_layers"), STEPS)
def test_no_matrix_product_becomes_a_loop_and_nothing_is_resharded_by_all_to_all(hub_id, num_layers):
    step = compiled_step(hub_id, num_layers)
    assert step["windowed"] == step["all_to_all"] == 0


@pytest.mark.parametrize(("hub_id", "num_layers"), STEPS)
def test_gathering_kernels_and_reducing_gradients_overlaps_with_matrix_products(hub_id, num_layers):
    """A layer has four weight matrices (Q, K and V share one). Each is gathered twice, and its gradient is reduced. In each
    pass, only the first gather is exposed.
    """
    step = compiled_step(hub_id, num_layers)
    exposed, overlapped = ([size for size in step[name] if size > 1e6] for name in ("exposed", "overlapped"))
    assert len(exposed) + len(overlapped) == 12
    assert sum(exposed) <= 0.15 * sum(exposed + overlapped)


def test_forty_layers_compile_in_the_time_of_four():
    assert compiled_step(STARCODER, 40)["compile_cpu_s"] <= 1.3 * compiled_step(STARCODER, 4)["compile_cpu_s"]
