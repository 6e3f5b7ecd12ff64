import json

import pytest

from tests.helpers.processes import run_python

# Saves a state ("save"), or restores it and prints the growth of memory at its peak, in bytes.
PROGRAM = """
import json, sys, threading
import jax, jax.numpy as jnp, numpy as np
from tests.helpers.tiny_states import CARD
from wizardcoder_jax.checkpoints.manager import CheckpointManager
from wizardcoder_jax.checkpoints.reader import find_checkpoint, load_params

def memory(kind):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(kind))

what, run, layout = sys.argv[1:]
shapes = {name: tuple(shape) for name, shape in json.loads(layout).items()}
if what == "save":
    with CheckpointManager(run, 1) as checkpoints:
        state = {name: jax.random.normal(jax.random.key(i), shape) for i, (name, shape) in enumerate(shapes.items())}
        checkpoints.save(1, CARD, {"params": state})
else:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    dtype = jnp.bfloat16 if what == "half" else jnp.float32
    leaves = {name: jax.ShapeDtypeStruct(shape, dtype, sharding=device) for name, shape in shapes.items()}
    small = {"x": jax.ShapeDtypeStruct((), jnp.float32, sharding=device)}
    with CheckpointManager(run + "/warm", 1) as checkpoints:  # so that one-time allocations are not measured
        checkpoints.save(1, CARD, {"params": {"x": jnp.float32(0)}})
        checkpoints.restore_latest({"params": small})
    with CheckpointManager(run, 1) as checkpoints:
        before = memory("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak is counted from here
        if what == "half":
            state = load_params(find_checkpoint(run), leaves)
        else:
            step, state = checkpoints.restore_latest({"params": leaves})
    jax.block_until_ready(state)
    print(json.dumps({"peak": memory("VmHWM") - before, "state": sum(leaf.nbytes for leaf in jax.tree.leaves(state))}))
"""
LAYOUTS = {
    "many arrays": {f"layer{i}.{name}": (1024, 1024) for i in range(24) for name in ("q", "k", "up", "down")},
    "few stacks": {"up": (24, 1024, 2048), "down": (24, 2048, 1024), "table": (24576, 1024)},
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_restoring_needs_little_more_memory_than_the_state(tmp_path, layout):
    run = []
    for what in ("save", "restore"):
        run.append(run_python("-c", PROGRAM, what, tmp_path / "run", json.dumps(LAYOUTS[layout])))
        assert run[-1].returncode == 0, run[-1].stderr[-3000:]
    found = json.loads(run[-1].stdout)
    assert found["state"] >= 384 << 20
    assert found["peak"] <= 1.3 * found["state"], found["peak"] / found["state"]
