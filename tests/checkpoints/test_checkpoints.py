import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.processes import run_python
from tests.helpers.tiny_states import CARD, DTYPES, bits_of, items, shapes_of
from wizardcoder_jax.checkpoints import manager as checkpoint_module
from wizardcoder_jax.checkpoints.fingerprint import fingerprint_arrays
from wizardcoder_jax.checkpoints.manager import CheckpointManager
from wizardcoder_jax.checkpoints.reader import DamagedError, find_checkpoint, load_params, read_card
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.logging_setup import configure_logging


def saved(run, *steps, keep=9, **settings):
    with CheckpointManager(str(run), keep, **settings) as checkpoints:
        for step in steps:
            checkpoints.save(step, CARD, items(step))
    return run


def latest(run, shapes=None):
    with CheckpointManager(str(run), 9) as checkpoints:
        return checkpoints.restore_latest(shapes or shapes_of(items(0)))


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("run"), 3, 6)


def expected_sums(array):
    """Compute the checksums with NumPy, following their definition."""
    words = {1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize]
    words = array.ravel().view(words).astype(np.uint32)
    index, found = np.arange(array.size, dtype=np.uint32), ""
    for seed, factor in ((0x6A09E667, 0x9E3779B1), (0xBB67AE85, 0x3C6EF373)):
        x = words ^ (index * np.uint32(factor) + np.uint32(seed))
        x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
        found += f"{(x ^ (x >> 16)).sum(dtype=np.uint32):08x}"
    return found


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4, 5), (0, 3)])
def test_a_checksum_is_what_its_definition_says(kind, shape):
    array = jnp.asarray(np.random.default_rng(0).integers(0, 2, shape), kind)
    line = fingerprint_arrays({"x": array})["x"]
    assert line == f"{kind}[{','.join(map(str, shape))}] {expected_sums(np.asarray(array))}"


def test_a_checksum_changes_with_a_bit_a_swap_and_the_shape():
    array = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    flipped, swapped = array.copy(), array.copy()
    flipped.view(np.uint32)[3, 3] ^= 1
    swapped[[0, 5]] = swapped[[5, 0]]
    others = {"same": array, "flipped": flipped, "swapped": swapped, "zero": 0 * array, "minus zero": -0.0 * np.abs(array)}
    lines = fingerprint_arrays(
        {name: jnp.asarray(value) for name, value in others.items()} | {"flat": jnp.asarray(array.ravel())}
    )
    assert len(set(lines.values())) == len(lines)


def test_a_checksum_needs_no_memory_besides_the_array():
    from wizardcoder_jax.checkpoints.fingerprint import array_checksums

    array = jax.ShapeDtypeStruct((16, 512, 512), jnp.float32)
    assert jax.jit(array_checksums).lower([array]).compile().memory_analysis().temp_size_in_bytes < 1e5


def test_a_restored_state_equals_the_saved_one_bit_for_bit(two_steps):
    step, found = latest(two_steps)
    assert step == 6 and bits_of(found) == bits_of(items(6)) and found["ema"] is None
    with CheckpointManager(str(two_steps), 9) as checkpoints:
        assert bits_of(checkpoints.restore(3, shapes_of(items(0)))) == bits_of(items(3))


def largest(folder):
    return max((file for file in Path(folder).rglob("d/*") if file.is_file()), key=lambda file: file.stat().st_size)


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[at % len(content)] ^= 0x10
    file.write_bytes(content)


def of_step_3(run, item):
    shutil.rmtree(run / "checkpoints/6" / item)
    shutil.copytree(run / "checkpoints/3" / item, run / "checkpoints/6" / item)


def inserted(file):
    content = file.read_bytes()
    file.write_bytes(content[:40] + b"\x00" * 8 + content[40:])


def tell(run, **changes):
    file = run / "checkpoints/6/model/metadata"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


DAMAGES = {
    "a bit of the weights": lambda run: flip(largest(run / "checkpoints/6/params"), 100),
    "a bit of the optimizer": lambda run: flip(largest(run / "checkpoints/6/optimizer"), 100),
    "a truncated file": lambda run: os.truncate(largest(run / "checkpoints/6/optimizer"), 20),
    "an empty file": lambda run: os.truncate(largest(run / "checkpoints/6/params"), 0),
    "bytes put in between": lambda run: inserted(largest(run / "checkpoints/6/optimizer")),
    "a missing file": lambda run: largest(run / "checkpoints/6/optimizer").unlink(),
    "missing files": lambda run: [file.unlink() for file in (run / "checkpoints/6/params").rglob("d/*")],
    "no index": lambda run: (run / "checkpoints/6/params/manifest.ocdbt").unlink(),
    "an empty index": lambda run: os.truncate(run / "checkpoints/6/params/manifest.ocdbt", 0),
    "no weights": lambda run: shutil.rmtree(run / "checkpoints/6/params"),
    "no optimizer": lambda run: shutil.rmtree(run / "checkpoints/6/optimizer"),
    "no card": lambda run: shutil.rmtree(run / "checkpoints/6/model"),
    "an empty card": lambda run: os.truncate(run / "checkpoints/6/model/metadata", 0),
    "another text in the card": lambda run: tell(run, step=7),
    "another step's weights": lambda run: of_step_3(run, "params"),
    "another step's optimizer": lambda run: of_step_3(run, "optimizer"),
    "another step's card": lambda run: of_step_3(run, "model"),
    "another step": lambda run: [of_step_3(run, item) for item in ("params", "optimizer", "model")],
    "nothing left": lambda run: [shutil.rmtree(run / "checkpoints/6"), (run / "checkpoints/6").mkdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_reported_skipped_and_renamed(two_steps, tmp_path, capsys, damage):
    configure_logging()
    run = shutil.copytree(two_steps, tmp_path / "run")
    DAMAGES[damage](run)
    step, found = latest(run)
    assert step == 3 and bits_of(found) == bits_of(items(3))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {run}/checkpoints/6") and "damaged" in line
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["3", "6.damaged"]
    saved(run, 6)
    assert latest(run)[0] == 6


def test_every_flipped_byte_is_detected_or_has_no_effect(two_steps, tmp_path):
    shapes, good, silent = shapes_of(items(0)), bits_of(items(6)), 0
    run = shutil.copytree(two_steps, tmp_path / "run")
    rng = np.random.default_rng(0)
    for file in sorted(path for path in (run / "checkpoints/6").rglob("*") if path.is_file()):
        content = file.read_bytes()
        for at in rng.integers(0, max(1, len(content)), 3):
            flip(file, int(at)) if content else None
            with CheckpointManager(str(run), 9) as checkpoints:
                try:
                    assert bits_of(checkpoints.restore(6, shapes)) == good
                    silent += 1
                except DamagedError:
                    pass
            file.write_bytes(content)
    assert silent > 0


def test_a_run_whose_steps_are_all_damaged_is_refused_and_left_unchanged(two_steps, tmp_path):
    run = shutil.copytree(two_steps, tmp_path / "run")
    for step in (3, 6):
        os.truncate(largest(run / f"checkpoints/{step}/params"), 5)
    with pytest.raises(InputError, match=r"all checkpoints in .* are damaged \(6, 3\); --overwrite starts over"):
        latest(run)
    assert sorted(os.listdir(run / "checkpoints")) == ["3", "6"]


def test_a_new_run_has_no_step_to_restore(tmp_path):
    assert latest(tmp_path / "run") is None


def test_a_second_damaged_checkpoint_of_the_same_step_does_not_replace_the_first(two_steps, tmp_path):
    run = shutil.copytree(two_steps, tmp_path / "run")
    for _ in range(2):
        os.truncate(largest(run / "checkpoints/6/params"), 5)
        latest(run)
        saved(run, 6)
    assert sorted(os.listdir(run / "checkpoints")) == ["3", "6", "6.damaged", "6.damaged.2"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda state: state | {"params": {"w": jnp.zeros((4, 7)), "b": jnp.zeros(6)}},
            r"params w is float32\[4,6\], expected float32\[4,7\]",
        ),
        (lambda state: state | {"params": {"w": jnp.zeros((4, 6))}}, r"params b is float32\[6\], expected nothing"),
        (lambda state: state | {"ema": {"w": jnp.zeros((4, 6))}}, r"ema w is nothing, expected float32\[4,6\]"),
        (lambda state: state | {"optimizer": jnp.int32(0)}, r"optimizer is nothing, expected int32\[\]"),
    ],
)
def test_an_intact_checkpoint_with_different_settings_is_refused_but_not_called_damaged(two_steps, change, complaint):
    with pytest.raises(InputError, match=complaint) as refusal:
        latest(two_steps, shapes_of(change(items(0))))
    assert not isinstance(refusal.value, DamagedError)
    assert sorted(os.listdir(two_steps / "checkpoints")) == ["3", "6"]


def test_the_newest_checkpoints_and_every_nth_are_kept(tmp_path):
    run = saved(tmp_path / "run", *range(1, 12), keep=2, keep_every_steps=4)
    assert sorted(map(int, os.listdir(run / "checkpoints"))) == [4, 8, 10, 11]
    run = saved(tmp_path / "other", *range(1, 6), keep=2, background=True)
    assert sorted(map(int, os.listdir(run / "checkpoints"))) == [4, 5]


def test_a_state_donated_during_the_write_is_saved_unchanged(tmp_path):
    host = np.random.default_rng(0).standard_normal((64, 256, 256)).astype(np.float32)
    spoil = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    jax.block_until_ready(spoil({"w": jnp.array(host), "n": jnp.arange(10)}))  # compile `spoil` before the save
    num_overlapping = 0
    with CheckpointManager(str(tmp_path / "run"), 9, background=True) as checkpoints:
        for step in range(1, 6):
            state = {"w": jnp.array(host + step), "n": jnp.arange(10)}
            before, shapes = bits_of({"params": state}), {"params": shapes_of(state)}
            checkpoints.save(step, CARD, {"params": state})
            for _ in range(3):
                state = jax.block_until_ready(spoil(state))
            num_overlapping += not (tmp_path / f"run/checkpoints/{step}").exists()
            checkpoints.wait()
            assert bits_of(checkpoints.restore(step, shapes)) == before
    assert num_overlapping > 0, "every write ended before the steps did, so nothing was tested"


FULL_DISK = """
import resource, sys
from tests.helpers.tiny_states import CARD, items
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.checkpoints.manager import CheckpointManager
def main(_):
    with CheckpointManager(sys.argv[1], 9, background=True) as checkpoints:
        checkpoints.save(1, CARD, items(1))
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        checkpoints.save(2, CARD, items(2))
        print("continues", flush=True)
        if sys.argv[2] == "save":
            checkpoints.save(3, CARD, items(3))
            print("not reached")
run_command(main)
"""


@pytest.mark.parametrize("moment", ["save", "end"])
def test_a_full_disk_is_one_error_line_at_the_next_save_or_at_the_end(tmp_path, moment):
    done = run_python("-c", FULL_DISK, tmp_path / "run", moment)
    assert (done.returncode, done.stdout) == (2, "continues\n"), done.stderr[-2000:]
    expected = r"error: .*/checkpoints cannot be written \(.*File too large.*\); earlier checkpoints are intact\n"
    assert re.fullmatch(expected, done.stderr)
    step, found = latest(tmp_path / "run")
    assert step == 1 and bits_of(found) == bits_of(items(1))


FROZEN = {"tokens": jnp.arange(32.0).reshape(8, 4)}
TRAINED = {"up": jnp.ones((4, 4)), "down": jnp.zeros((4, 4), jnp.bfloat16)}
PARTS = {"params": TRAINED, "frozen": FROZEN}


@pytest.fixture
def adapted(tmp_path):
    with CheckpointManager(str(tmp_path / "run"), 2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, dataclasses.replace(CARD, lora={"rank": 4}), PARTS)
    return tmp_path / "run"


def test_frozen_weights_are_saved_once_and_read_with_every_step(adapted):
    assert sorted(os.listdir(adapted / "checkpoints")) == ["2", "3"]
    assert {path.name for path in (adapted / "checkpoints/3").iterdir() if path.is_dir()} == {"model", "params"}
    step, found = latest(adapted, shapes_of(PARTS))
    assert step == 3 and bits_of(found) == bits_of(PARTS)
    step_dir, whole = find_checkpoint(str(adapted)), {**TRAINED, **FROZEN}
    assert read_card(step_dir).lora == {"rank": 4}
    assert bits_of(load_params(step_dir, shapes_of(whole))) == bits_of(whole)


def test_a_resumed_run_does_not_rewrite_its_frozen_weights(adapted):
    before = {file: file.stat().st_mtime_ns for file in (adapted / "frozen").rglob("*")}
    with CheckpointManager(str(adapted), 2) as checkpoints:
        assert checkpoints.restore_latest(shapes_of(PARTS)) is not None
        checkpoints.save(4, CARD, PARTS)
    with CheckpointManager(str(adapted), 2) as checkpoints:
        checkpoints.save(5, CARD, PARTS)
    assert {file: file.stat().st_mtime_ns for file in (adapted / "frozen").rglob("*")} == before


def test_a_step_without_its_frozen_weights_names_the_missing_folder(adapted, tmp_path):
    copied = shutil.copytree(adapted / "checkpoints/3", tmp_path / "elsewhere/checkpoints/3")
    with pytest.raises(
        InputError,
        match=rf"3 contains only the trained weights; the frozen weights are missing \({tmp_path}/elsewhere/frozen\)",
    ):
        load_params(str(copied), shapes_of({**TRAINED, **FROZEN}))


def test_damaged_or_foreign_frozen_weights_are_detected(adapted, tmp_path):
    other = tmp_path / "other"
    with CheckpointManager(str(other), 2) as checkpoints:
        checkpoints.save(1, CARD, {**PARTS, "frozen": {"tokens": FROZEN["tokens"] + 1}})
    flip(largest(adapted / "frozen"), 60)
    with pytest.raises(InputError, match=r"frozen/0/params is damaged"):
        load_params(find_checkpoint(str(adapted)), shapes_of({**TRAINED, **FROZEN}))
    with pytest.raises(InputError, match=r"frozen/0/params is damaged"):
        latest(adapted, shapes_of(PARTS))
    shutil.rmtree(adapted / "frozen")
    shutil.copytree(other / "frozen", adapted / "frozen")
    with pytest.raises(InputError, match=r"frozen/0 does not contain the frozen weights that .*3 was trained with"):
        latest(adapted, shapes_of(PARTS))


def test_a_run_rewrites_its_damaged_frozen_weights(adapted):
    flip(largest(adapted / "frozen"), 60)
    with CheckpointManager(str(adapted), 2) as checkpoints:
        checkpoints.save(4, CARD, PARTS)
    assert bits_of(latest(adapted, shapes_of(PARTS))[1]) == bits_of(PARTS)
    assert sorted(os.listdir(adapted / "frozen")) == ["0", "0.damaged"]


def test_weights_are_converted_to_the_requested_dtype(two_steps):
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=leaf.sharding), items(6)["params"]
    )
    found = load_params(find_checkpoint(str(two_steps)), wanted)
    assert bits_of(found) == bits_of(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), items(6)["params"]))


def test_large_arrays_are_stored_and_read_in_parts(tmp_path, monkeypatch):
    from wizardcoder_jax.checkpoints import tensorstore_io

    for module in (tensorstore_io, checkpoint_module):
        monkeypatch.setattr(module, "PART_BYTES", 4096)
    monkeypatch.setattr(tensorstore_io, "_AHEAD_BYTES", 9000)
    rng, placed, fill = np.random.default_rng(0), [], tensorstore_io._Shard.fill
    shapes = {"stack": (7, 30, 41), "table": (997, 12), "row": (5000,)}
    state = {"params": {name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}}

    def fill_and_note(self, part, start):
        placed.append(part.nbytes)
        fill(self, part, start)

    monkeypatch.setattr(tensorstore_io._Shard, "fill", fill_and_note)
    with CheckpointManager(str(tmp_path / "run"), 2) as checkpoints:
        checkpoints.save(1, CARD, state)
        assert bits_of(checkpoints.restore(1, shapes_of(state))) == bits_of(state)
    assert max(placed) <= 4096 and len(placed) > 20
