"""What sampling takes is known before it starts, and is never exceeded."""

import gc
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import tiny_models
from wizardcoder_jax import sample, serve
from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.evol_instruct.local_teacher import ModelTeacher
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.inference import memory, prefix_cache
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.engine_weights import abstract_engine_weights, load_engine_weights
from wizardcoder_jax.inference.request import GenerationRequest

SIZES = {"num_slots": 3, "max_length": 1000, "dtype": jnp.float32}


@pytest.fixture(scope="module", params=["gpt_bigcode", "llama"])
def opened(request, tmp_path_factory):
    makes = {
        "gpt_bigcode": lambda: tiny_models.gpt_bigcode(vocab_size=393, n_positions=1100),
        "llama": lambda: tiny_models.llama(vocab_size=393, max_position_embeddings=1100, tie_word_embeddings=True),
    }
    return open_model(str(tiny_models.save_folder(makes[request.param](), tmp_path_factory.mktemp("memory"))))


@pytest.fixture
def mesh():
    mesh = make_mesh("1x1")
    with jax.set_mesh(mesh):
        yield mesh


def requests(lengths):
    rng = np.random.default_rng(0)
    return [GenerationRequest(prompt=tuple(rng.integers(2, 380, n).tolist()), key=(0, 0), max_length=n + m) for n, m in lengths]


def live_bytes():
    """Of caches: parameters of blocks that are apart have at most 3 dims."""
    return sum(array.nbytes for array in jax.live_arrays() if array.ndim == 4)


@pytest.mark.parametrize(("dtype", "int8"), [("float32", False), ("bfloat16", False), ("bfloat16", True)])
def test_the_weights_take_what_was_said(opened, mesh, dtype, int8):
    said = memory.engine_memory(abstract_engine_weights(opened.arch, mesh, jnp.dtype(dtype), int8=int8), mesh, **SIZES)
    held = load_engine_weights(opened, mesh, jnp.dtype(dtype), int8=int8)
    assert said.weights_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(held))


def test_keys_and_values_never_take_more_than_was_said_and_nearly_as_much(opened, mesh, monkeypatch):
    model = load_engine_weights(opened, mesh, jnp.dtype("float32"))
    said = memory.engine_memory(model, mesh, **SIZES)
    gc.collect()
    others = live_bytes()  # what earlier tests have left
    engine, seen, prefiller = Engine(model, eos_ids=[], **SIZES), [], prefix_cache.prefill_program

    def watched(*how):
        def piece(*args):
            computed = prefiller(*how)(*args)
            seen.append(live_bytes() - others)
            return computed

        return piece

    monkeypatch.setattr(prefix_cache, "prefill_program", watched)
    lengths = [(600, 390), (550, 30), (640, 5), (700, 200), (900, 100), (800, 3), (520, 9), (3, 5)]
    list(engine.generate(requests(lengths)))
    assert len(seen) > 20
    assert 0.6 * said.cache_bytes < max(seen) <= said.cache_bytes


def test_an_accelerator_computes_with_sequences_in_eights_and_answers_the_same(opened, mesh, monkeypatch):
    model = load_engine_weights(opened, mesh, jnp.dtype("float32"))
    wanted = requests([(5, 20), (9, 30), (70, 10), (2, 40), (3, 3)])
    plain = Engine(model, eos_ids=[], **SIZES)
    expected = dict(plain.generate(wanted))
    monkeypatch.setattr(memory, "is_cpu_target", lambda: False)
    padded = Engine(model, eos_ids=[], **SIZES)
    assert padded.num_free_slots == 3
    assert dict(padded.generate(wanted)) == expected
    assert {len(engine._cache[0].values) for engine in (padded, plain)} == {8, 3}
    assert [memory.padded_num_slots(n) for n in (1, 8, 9, 64)] == [8, 8, 16, 64]
    assert (
        memory.engine_memory(model, mesh, **SIZES).cache_bytes
        == memory.engine_memory(model, mesh, **SIZES | {"num_slots": 8}).cache_bytes
    )


def test_loading_needs_room_for_one_array_of_all_layers_beside_the_weights(opened, mesh, monkeypatch):
    stacked = opened.weights(RULES["tensor"], mesh, jnp.dtype("float32")).model.blocks
    said = memory.engine_memory(abstract_engine_weights(opened.arch, mesh, jnp.dtype("float32")), mesh, **SIZES)
    assert said.loading_bytes == max(leaf.nbytes for leaf in jax.tree.leaves(stacked))
    needy = memory.EngineMemory(weights_bytes=50, cache_bytes=10, loading_bytes=20)
    monkeypatch.setattr(memory, "smallest_limit", lambda mesh: 70)
    needy.check_fits(mesh)
    monkeypatch.setattr(memory, "smallest_limit", lambda mesh: 69)
    with pytest.raises(InputError, match="before these, "):
        needy.check_fits(mesh)


def test_the_least_device_sets_the_limit_and_silent_ones_set_none():
    def mesh_of(*stats):
        return types.SimpleNamespace(local_devices=[types.SimpleNamespace(memory_stats=lambda own=own: own) for own in stats])

    assert memory.smallest_limit(mesh_of({"bytes_limit": 9}, None, {"bytes_limit": 7}, {"num_allocs": 1})) == 7
    assert memory.smallest_limit(mesh_of(None, {"num_allocs": 1})) is None


def test_doors_say_what_they_take_and_refuse_what_does_not_fit(opened, monkeypatch, capsys, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"instruction": "Add."}\n')
    folder = opened.origin.path
    named = ["sample", "--model", folder, "--cache-dir", str(tmp_path / "cache"), "--max-length", "80"]
    arguments = [*named, "--prompts", str(tmp_path / "prompts.jsonl"), "--output", str(tmp_path / "out" / "samples.jsonl")]
    sample.main(arguments[1:])
    assert "sample: " in (said := capsys.readouterr().err) and "MiB of weights and at most " in said
    (tmp_path / "out" / "samples.jsonl").unlink()
    (tmp_path / "out" / "samples.meta.json").unlink()

    monkeypatch.setattr(memory, "smallest_limit", lambda mesh: 100_000)
    for door, line in ((sample, arguments), (serve, ["serve", "--model", folder, "--port", "0"])):
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as stop:
            run_command(door.main)
        assert stop.value.code == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "do not fit on a device of 0.10 MiB; lower the batch size" in said
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(InputError, match="do not fit on a device"):
        ModelTeacher(TeacherConfig(kind="model", model=folder, max_length=200))
