"""The memory of sampling is computed before it starts, and is never exceeded."""

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
FAMILIES = {
    "gpt_bigcode": lambda: tiny_models.gpt_bigcode(vocab_size=393, n_positions=1100),
    "llama": lambda: tiny_models.llama(vocab_size=393, max_position_embeddings=1100, tie_word_embeddings=True),
}


@pytest.fixture(scope="module", params=["llama", pytest.param("gpt_bigcode", marks=pytest.mark.slow)])
def opened(request, tmp_path_factory):
    return open_model(str(tiny_models.save_folder(FAMILIES[request.param](), tmp_path_factory.mktemp("memory"))))


@pytest.fixture
def mesh():
    mesh = make_mesh("1x1")
    with jax.set_mesh(mesh):
        yield mesh


def make_requests(lengths):
    """Return requests with the given (prompt length, answer length) pairs."""
    rng = np.random.default_rng(0)
    return [GenerationRequest(prompt=tuple(rng.integers(2, 380, n).tolist()), key=(0, 0), max_length=n + m) for n, m in lengths]


def live_cache_bytes():
    """Return the bytes of all live KV caches. They are the only arrays with 4 dimensions."""
    return sum(array.nbytes for array in jax.live_arrays() if array.ndim == 4)


@pytest.mark.parametrize(("dtype", "int8"), [("float32", False), ("bfloat16", False), ("bfloat16", True)])
def test_the_weights_take_exactly_the_estimated_memory(opened, mesh, dtype, int8):
    shapes = abstract_engine_weights(opened.arch, mesh, jnp.dtype(dtype), int8=int8)
    estimate = memory.engine_memory(shapes, mesh, **SIZES)
    weights = load_engine_weights(opened, mesh, jnp.dtype(dtype), int8=int8)
    assert estimate.weights_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(weights))


def test_keys_and_values_take_nearly_as_much_as_estimated_and_never_more(opened, mesh, monkeypatch):
    model = load_engine_weights(opened, mesh, jnp.dtype("float32"))
    estimate = memory.engine_memory(model, mesh, **SIZES)
    gc.collect()
    others = live_cache_bytes()  # left by earlier tests
    engine, measured, prefill_program = Engine(model, eos_ids=[], **SIZES), [], prefix_cache.prefill_program

    def measuring_program(*options):
        def prefill_chunk(*args):
            result = prefill_program(*options)(*args)
            measured.append(live_cache_bytes() - others)
            return result

        return prefill_chunk

    monkeypatch.setattr(prefix_cache, "prefill_program", measuring_program)
    lengths = [(600, 390), (550, 30), (640, 5), (700, 200), (900, 100), (800, 3), (520, 9), (3, 5)]
    list(engine.generate(make_requests(lengths)))
    assert len(measured) > 20
    assert 0.6 * estimate.cache_bytes < max(measured) <= estimate.cache_bytes


def test_padding_the_batch_to_eight_on_an_accelerator_changes_no_answer(opened, mesh, monkeypatch):
    model = load_engine_weights(opened, mesh, jnp.dtype("float32"))
    requests = make_requests([(5, 20), (9, 30), (70, 10), (2, 40), (3, 3)])
    plain = Engine(model, eos_ids=[], **SIZES)
    expected = dict(plain.generate(requests))
    monkeypatch.setattr(memory, "is_cpu_target", lambda: False)
    padded = Engine(model, eos_ids=[], **SIZES)
    assert padded.num_free_slots == 3
    assert dict(padded.generate(requests)) == expected
    assert {len(engine._cache[0].values) for engine in (padded, plain)} == {8, 3}
    assert [memory.padded_num_slots(n) for n in (1, 8, 9, 64)] == [8, 8, 16, 64]
    three, eight = (memory.engine_memory(model, mesh, **SIZES | {"num_slots": n}) for n in (3, 8))
    assert three.cache_bytes == eight.cache_bytes


def test_loading_needs_memory_for_one_stacked_array_next_to_the_weights(opened, mesh, monkeypatch):
    stacked = opened.weights(RULES["tensor"], mesh, jnp.dtype("float32")).model.blocks
    shapes = abstract_engine_weights(opened.arch, mesh, jnp.dtype("float32"))
    estimate = memory.engine_memory(shapes, mesh, **SIZES)
    assert estimate.loading_bytes == max(leaf.nbytes for leaf in jax.tree.leaves(stacked))
    mostly_loading = memory.EngineMemory(weights_bytes=50, cache_bytes=10, loading_bytes=20)
    monkeypatch.setattr(memory, "smallest_limit", lambda mesh: 70)
    mostly_loading.check_fits(mesh)
    monkeypatch.setattr(memory, "smallest_limit", lambda mesh: 69)
    with pytest.raises(InputError, match="before these, "):
        mostly_loading.check_fits(mesh)


def test_the_smallest_device_sets_the_limit_and_devices_without_a_limit_are_ignored():
    def make_mesh_of(*stats):
        devices = [types.SimpleNamespace(memory_stats=lambda found=found: found) for found in stats]
        return types.SimpleNamespace(local_devices=devices)

    assert memory.smallest_limit(make_mesh_of({"bytes_limit": 9}, None, {"bytes_limit": 7}, {"num_allocs": 1})) == 7
    assert memory.smallest_limit(make_mesh_of(None, {"num_allocs": 1})) is None


def test_commands_log_their_memory_and_refuse_what_does_not_fit(opened, monkeypatch, capsys, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"instruction": "Add."}\n')
    folder = opened.origin.path
    options = ["sample", "--model", folder, "--cache-dir", str(tmp_path / "cache"), "--max-length", "80"]
    arguments = [*options, "--prompts", str(tmp_path / "prompts.jsonl"), "--output", str(tmp_path / "out" / "samples.jsonl")]
    sample.main(arguments[1:])
    log = capsys.readouterr().err
    assert "sample: " in log and "MiB of weights and at most " in log
    (tmp_path / "out" / "samples.jsonl").unlink()
    (tmp_path / "out" / "samples.meta.json").unlink()

    monkeypatch.setattr(memory, "smallest_limit", lambda mesh: 100_000)
    for command, line in ((sample, arguments), (serve, ["serve", "--model", folder, "--port", "0"])):
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as stop:
            run_command(command.main)
        assert stop.value.code == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert "do not fit on a device of 0.10 MiB; lower the batch size" in last
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(InputError, match="do not fit on a device"):
        ModelTeacher(TeacherConfig(kind="model", model=folder, max_length=200))
