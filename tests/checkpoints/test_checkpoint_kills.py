import json

import pytest

from tests.helpers.processes import run_python

# Forks child processes after all imports, but before any device is initialized. Each child resumes the run and is killed at a
# random moment after it has saved at least one step.
PROGRAM = """
import json, os, random, signal, sys, time
import jax, jax.numpy as jnp, numpy as np
from tests.helpers.tiny_states import CARD, bits_of, shapes_of
from wizardcoder_jax.checkpoints.manager import CheckpointManager

run, log, num_kills = sys.argv[1], sys.argv[2], int(sys.argv[3])

def expected(step):
    rng = np.random.default_rng(step)
    arrays = {f"w{i}": rng.standard_normal((64, 1024)).astype(np.float32) for i in range(12)}
    return {"params": arrays, "optimizer": {"m": arrays["w0"] + 1, "count": np.int32(step)}}

def note(**what):
    with open(log, "a") as file:
        file.write(json.dumps(what) + chr(10))

def train(last):
    spoil = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    shapes = shapes_of(jax.tree.map(jnp.asarray, expected(0)))
    with CheckpointManager(run, 1, keep_every_steps=1000, background=True) as checkpoints:
        found = checkpoints.restore_latest(shapes)
        start = 0 if found is None else found[0]
        good = found is None or bits_of(found[1]) == bits_of(expected(start))
        note(restored=start, good=good)
        for step in range(start + 1, 100_000 if last is None else start + last):
            state = jax.tree.map(jnp.array, expected(step))
            checkpoints.save(step, CARD, state)
            note(saved=step - 1)  # the step before is durable once the next save begins
            jax.block_until_ready(spoil(state))

def num_notes():
    return open(log).read().count(chr(10)) if os.path.exists(log) else 0

def child(last, kill_after):
    notes_before = num_notes()
    pid = os.fork()
    if pid == 0:
        try:
            train(last)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        while num_notes() < notes_before + 3:  # restored, and a new step is durable
            time.sleep(0.01)
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]

random.seed(0)
for _ in range(num_kills):
    assert child(None, random.uniform(0, 0.5)) == signal.SIGKILL
assert child(3, None) == 0
"""


@pytest.mark.parametrize("num_kills", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_at_any_moment_resumes_from_the_last_whole_step(tmp_path, num_kills):
    done = run_python("-W", "ignore", "-c", PROGRAM, tmp_path / "run", tmp_path / "log.jsonl", num_kills)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trying an earlier checkpoint" not in done.stderr
    durable, restored = 0, []
    for entry in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()):
        if "restored" in entry:
            assert entry["good"] and entry["restored"] >= durable
            restored.append(entry["restored"])
        else:
            durable = max(durable, entry["saved"])
    assert len(set(restored)) == len(restored) == num_kills + 1, restored
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == [str(restored[-1] + 2)]
