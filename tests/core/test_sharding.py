import json

import pytest

from tests.helpers.collectives import collectives
from tests.helpers.processes import REPOSITORY, run_python
from tests.helpers.sharded_steps import ARCHITECTURES, BATCH, EMBED, HEAD, LAYERS, LENGTH


def results(*args):
    """The JSON objects that a program of tests/helpers/sharded_steps.py prints."""
    done = run_python(REPOSITORY / "tests/helpers/sharded_steps.py", *args, num_devices=8)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_equals_one_device(step):
    assert step["loss"][0] == pytest.approx(step["loss"][1], rel=1e-5)
    # without rope, a bias on keys changes no attention score: its gradient is rounding noise around 0
    floor = 1e-2 * max(step["largest"].values())
    wrong = {key: error for key, error in step["errors"].items() if error > 1e-5 * max(step["largest"][key], floor)}
    assert wrong == {}


def assert_only_necessary_exchanges(step):
    """Check that there is no all-to-all, that attention gathers nothing, and that only the residual stream crosses "model"."""
    num_data = int(step["mesh"].split("x")[0])
    for exchange in step["exchanges"]:
        assert exchange["kind"] in ("all-gather", "all-reduce", "reduce-scatter"), exchange
        if exchange["kind"] != "all-gather":
            continue
        for shape in exchange["shapes"]:
            assert EMBED in shape or HEAD not in shape, exchange  # only kernels have both dims
            assert LENGTH not in shape or EMBED in shape, exchange
            if step["strategy"] == "fsdp_tensor" and exchange["over_model"]:
                assert shape == [BATCH // num_data, LENGTH, EMBED], exchange


def assert_positions_are_split_between_blocks(step):
    num_data, num_model = (int(part) for part in step["mesh"].split("x"))
    rows, split = (BATCH // num_data, num_model) if step["strategy"] == "fsdp_tensor" else (BATCH // 8, 1)
    # the carry of the scan over blocks, and the activations that it saves for the backward pass
    assert [rows, LENGTH // split, EMBED] in step["carried"]
    assert [LAYERS, rows, LENGTH // split, EMBED] in step["carried"]
    if split > 1:
        assert [LAYERS, rows, LENGTH, EMBED] not in step["carried"]


def assert_sharded_steps_are_right(steps, num_steps):
    assert len(steps) == num_steps
    for step in steps:
        assert_equals_one_device(step)
        assert_only_necessary_exchanges(step)
        assert_positions_are_split_between_blocks(step)


def test_a_sharded_step_equals_one_device_and_exchanges_only_what_is_necessary():
    assert_sharded_steps_are_right(results("steps", "qwen2", "2x4"), 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_step_on_every_mesh_equals_one_device_and_exchanges_only_what_is_necessary(name):
    assert_sharded_steps_are_right(results("steps", name), 8)


def assert_caches_are_right(cases, num_cases):
    assert len(cases) == num_cases
    for case in cases:
        assert case["error"] < 1e-5 * case["largest"]


def test_decoding_on_a_mesh_equals_decoding_on_one_device():
    assert_caches_are_right(results("caches", "qwen2"), 2)


@pytest.mark.slow
def test_decoding_every_architecture_on_a_mesh_equals_decoding_on_one_device():
    assert_caches_are_right(results("caches"), 7)


def test_unnecessary_exchanges_are_found():
    left_to_the_compiler, never_gathered = (
        {**program, "strategy": "fsdp_tensor", "mesh": "2x4"} for program in results("careless")
    )
    for program in (left_to_the_compiler, never_gathered):
        with pytest.raises(AssertionError):
            assert_only_necessary_exchanges(program)
    kinds = {exchange["kind"] for exchange in left_to_the_compiler["exchanges"]}
    assert "all-to-all" in kinds
    gathered = [
        shape for exchange in left_to_the_compiler["exchanges"] for shape in exchange["shapes"] if exchange["over_model"]
    ]
    assert [4, 2, HEAD, LENGTH] in gathered  # the gradient of the keys, two heads on four devices


def test_splitting_positions_between_blocks_saves_memory():
    split, whole = results("memory")
    assert [24, 4, 32, EMBED] in split["carried"] and [24, 4, 256, EMBED] not in split["carried"]
    assert [24, 4, 256, EMBED] in whole["carried"]
    kept_bytes = 24 * 4 * 256 * EMBED * 4
    assert split["temp_bytes"] < whole["temp_bytes"] - 0.8 * kept_bytes


PAIRS = ((0, 4), (1, 5), (2, 6), (3, 7))
FOURS = ((0, 1, 2, 3), (4, 5, 6, 7))


@pytest.mark.parametrize(
    ("line", "kind", "shapes", "groups"),
    [
        ("%a = f32[4,8]{1,0} all-gather(%b), replica_groups={{0,1,2,3},{4,5,6,7}}, dims", "all-gather", ((4, 8),), FOURS),
        ("ROOT %a = (bf16[4]{0}, s32[]) all-reduce(%b, %c), replica_groups=[2,4]<=[8], x", "all-reduce", ((4,), ()), FOURS),
        ("%a = f8e4m3fn[2,3] all-to-all(%b), replica_groups=[4,2]<=[2,4]T(1,0), x", "all-to-all", ((2, 3),), PAIRS),
        ("%a = f32[2] all-gather-start(%b), replica_groups=mesh['x'=2,'y'=4] {'y'}, x", "all-gather", ((2,),), FOURS),
        ("%a = f32[2] all-gather(%b), replica_groups=mesh['x'=2,'y'=4] {'x'}, x", "all-gather", ((2,),), PAIRS),
        (
            "%a = f32[2] all-gather(%b), replica_groups=mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'y'}, x",
            *("all-gather", ((2,),), PAIRS),
        ),
        (
            "%a = f32[2] all-gather(%b), replica_groups=mesh['x'=8] {'x':(2)2}, x",
            *("all-gather", ((2,),), ((0, 2), (1, 3), (4, 6), (5, 7))),
        ),
        ("%a = f32[2] all-reduce(%b), replica_groups={}, to_apply=%add", "all-reduce", ((2,),), (tuple(range(8)),)),
        (
            "%a = f32[2] collective-permute(%b), source_target_pairs={{0,4},{1,5},{2,6},{3,7}}, x",
            "collective-permute",
            ((2,),),
            PAIRS,
        ),
    ],
)
def test_collectives_are_parsed_from_every_form_of_the_text(line, kind, shapes, groups):
    [found] = collectives(f'HloModule m\n  {line} metadata={{op_name="jit(step)/dot"}}\n  %c = f32[2] add(%a, %a)', 8)
    assert (found.kind, found.shapes, found.op_name) == (kind, shapes, "jit(step)/dot")
    assert sorted(found.groups) == sorted(groups)
    assert found.crosses(4) == (groups != PAIRS)


def test_replica_groups_in_an_unknown_form_are_an_error():
    with pytest.raises(ValueError, match="unknown form"):
        collectives("%a = f32[2] all-gather(%b), replica_groups=<0,1>, x", 8)
