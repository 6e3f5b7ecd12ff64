"""What must stay true of the step that TPUs are given: compiled ahead of time at full width, not run."""

import json
import subprocess
import sys

import pytest

from tests.helpers.processes import REPOSITORY
from wizardcoder_jax.planning.compile_jobs import compiler_environment


@pytest.fixture(scope="module")
def steps():
    found = {}
    for num_layers in (4, 40):
        command = [sys.executable, str(REPOSITORY / "tests/helpers/compiled_steps.py"), str(num_layers)]
        done = subprocess.run(command, env=compiler_environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
        found[num_layers] = json.loads(done.stdout)
    return found


def test_attention_is_the_kernel_forward_and_backward(steps):
    kernels = {name: times for name, times in steps[40]["kernels"].items() if name.startswith("splash")}
    assert sum("fwd" in name for name in kernels) == 1
    assert sum("dkv" in name for name in kernels) == 1
    assert all(times % 40 == 0 for times in kernels.values())


def test_logits_are_never_held_of_all_tokens(steps):
    for step in steps.values():
        assert 0 < step["logits_of_tokens"] <= step["tokens"] / 4


def test_no_product_is_broken_into_a_loop_and_nothing_is_dealt_out_anew(steps):
    for step in steps.values():
        assert step["windowed"] == step["all_to_all"] == 0


def test_kernels_are_gathered_and_gradients_summed_inside_products(steps):
    """Four kernels a layer (queries, keys and values are one), gathered twice and their gradients summed: of these a pass waits
    for the gather that it begins with.
    """
    for step in steps.values():
        waited_for, carried_on = ([size for size in step[name] if size > 1e6] for name in ("waited_for", "carried_on"))
        assert len(waited_for) + len(carried_on) == 12
        assert sum(waited_for) <= 0.15 * sum(waited_for + carried_on)


def test_forty_layers_compile_in_the_time_of_four(steps):
    assert steps[40]["compile_cpu_s"] <= 1.3 * steps[4]["compile_cpu_s"]
