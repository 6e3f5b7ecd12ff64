import json

import pytest

from tests.helpers.collectives import collectives
from tests.helpers.processes import REPOSITORY, run_python
from tests.helpers.sharded_steps import ARCHITECTURES, BATCH, EMBED, HEAD, LAYERS, LENGTH


def results(*args):
    done = run_python(REPOSITORY / "tests/helpers/sharded_steps.py", *args, num_devices=8)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_equals_one_device(step):
    assert step["loss"][0] == pytest.approx(step["loss"][1], rel=1e-5)
    # a bias on keys that learned positions do not turn moves no score: its gradient is rounding noise around 0
    floor = 1e-2 * max(step["largest"].values())
    wrong = {key: error for key, error in step["errors"].items() if error > 1e-5 * max(step["largest"][key], floor)}
    assert wrong == {}


def assert_only_what_must_be_is_exchanged(step):
    """No all-to-all; of attention nothing is gathered; over "model", where it splits heads, nothing but the residual stream."""
    num_data = int(step["mesh"].split("x")[0])
    for exchange in step["exchanges"]:
        assert exchange["kind"] in ("all-gather", "all-reduce", "reduce-scatter"), exchange
        if exchange["kind"] != "all-gather":
            continue
        for shape in exchange["shapes"]:
            assert EMBED in shape or HEAD not in shape, exchange  # only kernels hold both widths
            assert LENGTH not in shape or EMBED in shape, exchange
            if step["strategy"] == "fsdp_tensor" and exchange["over_model"]:
                assert shape == [BATCH // num_data, LENGTH, EMBED], exchange


def assert_places_are_split_between_blocks(step):
    num_data, num_model = (int(part) for part in step["mesh"].split("x"))
    rows, split = (BATCH // num_data, num_model) if step["strategy"] == "fsdp_tensor" else (BATCH // 8, 1)
    # what the scan over blocks hands on, and what it keeps of every block for the backward pass
    assert [rows, LENGTH // split, EMBED] in step["carried"]
    assert [LAYERS, rows, LENGTH // split, EMBED] in step["carried"]
    if split > 1:
        assert [LAYERS, rows, LENGTH, EMBED] not in step["carried"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_step_on_every_mesh_is_that_of_one_device_and_exchanges_only_what_it_must(name):
    steps = results("steps", name)
    assert len(steps) == 8
    for step in steps:
        assert_equals_one_device(step)
        assert_only_what_must_be_is_exchanged(step)
        assert_places_are_split_between_blocks(step)


def test_decoding_on_a_mesh_equals_decoding_on_one_device():
    for found in results("caches"):
        assert found["error"] < 1e-5 * found["largest"]


def test_exchanges_that_should_not_be_are_found():
    left_to_the_compiler, never_gathered = (
        {**program, "strategy": "fsdp_tensor", "mesh": "2x4"} for program in results("careless")
    )
    for program in (left_to_the_compiler, never_gathered):
        with pytest.raises(AssertionError):
            assert_only_what_must_be_is_exchanged(program)
    kinds = {exchange["kind"] for exchange in left_to_the_compiler["exchanges"]}
    assert "all-to-all" in kinds
    gathered = [
        shape for exchange in left_to_the_compiler["exchanges"] for shape in exchange["shapes"] if exchange["over_model"]
    ]
    assert [4, 2, HEAD, LENGTH] in gathered  # the gradient of the keys: two heads of them on four devices


def test_places_that_are_split_between_blocks_take_less_memory():
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
def test_collectives_are_read_from_every_form_of_the_text(line, kind, shapes, groups):
    [found] = collectives(f'HloModule m\n  {line} metadata={{op_name="jit(step)/dot"}}\n  %c = f32[2] add(%a, %a)', 8)
    assert (found.kind, found.shapes, found.op_name) == (kind, shapes, "jit(step)/dot")
    assert sorted(found.groups) == sorted(groups)
    assert found.crosses(4) == (groups != PAIRS)


def test_replica_groups_of_an_unknown_form_are_an_error():
    with pytest.raises(ValueError, match="unknown form"):
        collectives("%a = f32[2] all-gather(%b), replica_groups=<0,1>, x", 8)
