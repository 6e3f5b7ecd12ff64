"""The plan command: settings that fit, settings that do not fit, the search, and settings that are refused."""

import dataclasses
import json

import pytest
from jax.experimental import topologies

from wizardcoder_jax import plan
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.models.families.registry import published_arch
from wizardcoder_jax.planning import planned_model, planner

SMALL = ("--base", "bigcode/tiny_starcoder_py", "--batch-size", "8", "--accumulation", "1", "--max-length", "256")
KEYS = {  # of plan.json that users and programs read
    *("topology", "mesh", "strategy", "remat", "microbatch", "accumulation", "fits", "hbm_bytes_per_chip", "hbm_limit_bytes"),
    *("estimated_step_s", "estimated_mfu", "ideal_step_s", "flops", "collective_bytes", "largest_buffers", "suggestions"),
}


@pytest.fixture(autouse=True)
def full_optimization(monkeypatch):
    """Compile for TPUs with all optimizations, which tests/conftest.py disables, because a plan depends on them."""
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)


def two_layers(hub_id):
    arch = published_arch(hub_id)
    return arch and dataclasses.replace(arch, num_layers=2)


def test_a_plan_that_fits_reports_memory_step_time_and_decoding(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planned_model, "published_arch", two_layers)
    head, positions, layers = 49_408 * 768, 8192 * 768, 2 * 768 * (768 + 2 * 64 + 768 + 2 * 3072)
    num_params, num_tokens = head + positions + layers, 8 * 256
    output = tmp_path / "plan.json"
    decode = ["--decode-batch-size", "8", "--decode-length", "256"]
    plan.main([*SMALL, *decode, "--topology", "v5e:2x2", "--mesh", "4x1", "--output", str(output)])
    found = json.loads(output.read_text())
    assert found.keys() >= KEYS
    assert found["label"] == "compiled, not run"
    assert (found["topology"], found["mesh"], found["microbatch"], found["accumulation"]) == ("v5e:2x2", "4x1", 8, 1)
    assert found["fits"] and found["hbm_bytes_per_chip"] < found["hbm_limit_bytes"] == int(15.75 * 2**30)
    assert sum(found["hbm_bytes_by_kind"].values()) == found["hbm_bytes_per_chip"]
    state = found["hbm_bytes_by_kind"]["params"]
    assert found["hbm_bytes_by_kind"]["optimizer"] == pytest.approx(2 * state, rel=1e-3)  # two moments
    assert state == pytest.approx(num_params, rel=0.01)  # float32 weights over four chips
    assert found["model_flops"] == pytest.approx(6 * num_params * num_tokens, rel=0.01)
    # Full remat recomputes the forward pass of the layers: 8 instead of 6 FLOPs per parameter and token.
    assert found["flops"] == pytest.approx((6 * head + 8 * layers) * num_tokens, rel=0.05)
    assert 0 < found["estimated_mfu"] < 1
    assert found["estimated_step_s"] == pytest.approx(found["ideal_step_s"] / found["estimated_mfu"])
    assert found["collective_bytes"]["all-gather"] > 2 * num_params  # the weights in bfloat16, at least once
    assert found["largest_buffers"][0]["bytes"] >= found["largest_buffers"][-1]["bytes"] > 0
    assert found["suggestions"] == []
    by_weights = {decoding["weights"]: decoding for decoding in found["decoding"]}
    assert by_weights["int8"]["floor_step_s"] < by_weights["bfloat16"]["floor_step_s"]
    for decoding in by_weights.values():
        assert decoding["fits"] and decoding["estimated_step_s"] > decoding["floor_step_s"]
        assert 0 < decoding["estimated_step_waits_s"] < decoding["estimated_step_s"]  # four chips
    text = capsys.readouterr().out
    assert "it fits" in text and "compiled, not run" in text and "MFU" in text and "int8" in text


def test_a_run_that_does_not_fit_fails_with_verified_suggestions(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planner, "NUM_SUGGESTIONS", 2)
    output = tmp_path / "plan.json"
    # Its state alone takes 46 GiB per chip.
    wrong = ["--base", "bigcode/starcoder", "--batch-size", "8", "--accumulation", "1"]
    wrong += ["--topology", "v5e:2x2", "--mesh", "4x1"]
    with pytest.raises(SystemExit) as stop:
        plan.main([*wrong, "--fast", "--output", str(output)])
    assert stop.value.code == 1
    found = json.loads(output.read_text())
    assert not found["fits"] and found["hbm_bytes_per_chip"] > found["hbm_limit_bytes"]
    assert len(found["suggestions"]) >= 2
    text = capsys.readouterr().out
    assert "DOES NOT FIT" in text
    for suggestion in found["suggestions"]:
        assert suggestion["flags"] in text
    # A suggestion can be pasted behind the command, and then the run fits.
    best = found["suggestions"][0]
    plan.main([*wrong, "--fast", "--output", str(output), *best["flags"].split()])
    assert json.loads(output.read_text())["hbm_bytes_per_chip"] == best["hbm_bytes_per_chip"] <= found["hbm_limit_bytes"]


def test_auto_chooses_mesh_strategy_remat_and_microbatches(tmp_path, capsys):
    output = tmp_path / "plan.json"
    plan.main([*SMALL, "--topology", "v5e:2x2", "--mesh", "auto", "--fast", "--output", str(output)])
    found = json.loads(output.read_text())
    data, model = map(int, found["mesh"].split("x"))
    assert data * model == 4 and found["fits"]
    assert found["microbatch"] * found["accumulation"] == 8
    assert "choices of mesh" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--topology", "v7:2x2"], "topology 'v7:2x2' has an unknown chip"),
        (["--topology", "v5e"], "topology 'v5e' must have 2 sizes"),
        (["--topology", "v5e:2x2x2"], "topology 'v5e:2x2x2' must have 2 sizes"),
        (["--topology", "v5e:0x4"], "topology 'v5e:0x4' must have 2 sizes"),
        (["--topology", "v5p:2x2x3", "--mesh", "12x1"], None),
        (["--topology", "v5e:3x3"], "topology 'v5e:3x3' must consist of hosts of 2x2 chips"),
        (["--topology", "h100:12"], "topology 'h100:12' must consist of hosts of 8 GPUs"),
        (["--mesh", "2x2"], "mesh 2x2 has 4 chips, but topology v5e:4x8 has 32"),
        (["--mesh", "32"], "mesh '32' is not of the form DATAxMODEL"),
        (["--mesh", "-4x-8"], "mesh '-4x-8' is not of the form DATAxMODEL"),
        (["--mesh", "32x1"], "microbatches of 8 sequences"),
        (["--mesh", "auto", "--batch-size", "7"], "no mesh of 32 chips divides batches of 7"),
        (["--max-length", "100000", "--batch-size", "32", "--mesh", "32x1"], "max_length 100000 exceeds"),
        (["--max-length", "100000", "--mesh", "auto"], "max_length 100000 exceeds"),
        (["--decode-batch-size", "0"], "decode_batch_size must be at least 1"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(flags, complaint, monkeypatch):
    monkeypatch.setattr(planner, "MAX_COMPILED", 0)
    if complaint is None:
        flags, complaint = [*flags, "--batch-size", "13"], "microbatches of 13 sequences"
    with pytest.raises(InputError, match=complaint) as refusal:
        plan.main([*SMALL, *flags])
    assert "\n" not in str(refusal.value)


def test_a_missing_compiler_is_reported_with_the_command_that_installs_it(monkeypatch):
    from wizardcoder_jax.planning.topology import parse_topology, topology_devices

    def missing(**_):
        raise RuntimeError("JAX TPU support not installed")

    monkeypatch.setattr(topologies, "get_topology_desc", missing)
    for name, extra in (("v5e:2x2", "tpu"), ("h100:8", "gpu")):
        with pytest.raises(InputError, match=f"make setup EXTRA={extra}"):
            topology_devices(parse_topology(name))
