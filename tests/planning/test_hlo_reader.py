"""Parsers of HLO text and memory reports: costs, trip counts, collectives and memory."""

import dataclasses

import pytest

from wizardcoder_jax.planning.compiled_time import collective_time_s, estimate_time
from wizardcoder_jax.planning.hlo_reader import Collective, CompiledProgram, read_program
from wizardcoder_jax.planning.memory_report import parse_memory_report, parse_required_bytes
from wizardcoder_jax.planning.topology import parse_topology

pytestmark = pytest.mark.quick

PROGRAM = """
HloModule jit_step

%condition (p: (s32[], bf16[8,128])) -> pred[] {
  %p = (s32[], bf16[8,128]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %bound = s32[] constant(40)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%until (p: (s32[], bf16[8,128])) -> pred[] {
  %p = (s32[], bf16[8,128]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %most = s32[] get-tuple-element(%p), index=1
  ROOT %less = pred[] compare(%i, %most), direction=LT
}

%product (a: bf16[8,128], b: bf16[128,512]) -> bf16[8,512] {
  %a = bf16[8,128]{1,0} parameter(0)
  %b = bf16[128,512]{1,0} parameter(1)
  %gathered = bf16[128,512]{1,0} all-gather(%b), channel_id=9, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %out = bf16[8,512]{1,0:T(8,128)(2,1)} convolution(%a, %gathered), dim_labels=bf_io->bf
}

%summed (a: f32[512]) -> f32[64] {
  %a = f32[512]{0} parameter(0)
  %all = f32[512]{0} all-reduce(%a), channel_id=5, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  ROOT %own = f32[64]{0} dynamic-slice(%all, %a), dynamic_slice_sizes={64}
}

%carries (a: f32[512]) -> f32[64] {
  %a = f32[512]{0} parameter(0)
  ROOT %own = f32[64]{0} reduce-scatter(%a), channel_id=6, replica_groups=[1,8]<=[8], frontend_attributes={chain_id="1"}
}

%carries_two (a: f32[512]) -> f32[64] {
  %a = f32[512]{0} parameter(0)
  %all = f32[512]{0} all-gather(%a), channel_id=6, replica_groups=[1,8]<=[8], frontend_attributes={chain_id="2"}
  ROOT %own = f32[64]{0} reduce-scatter(%a), channel_id=6, replica_groups=[1,8]<=[8], frontend_attributes={chain_id="1"}
}

%inner (p: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %p = (s32[], bf16[8,128]) parameter(0)
  %kernel = bf16[8,128]{1,0} custom-call(%p), custom_call_target="tpu_custom_call", metadata={op_name="x"}
  ROOT %t = (s32[], bf16[8,128]) tuple(%p), backend_config={"estimated_cycles":"5"}
}

%body (p: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %p = (s32[], bf16[8,128]) parameter(0)
  %splash_fwd.3 = bf16[8,128]{1,0} custom-call(%p), custom_call_target="tpu_custom_call", metadata={op_name="attend"}
  %heads = bf16[2,48,4]{2,1,0} convolution(%h, %w), window={size=48 pad=47_47 rhs_reversal=1}, dim_labels=b0f_i0o->b0f
  %h = bf16[2,1,6]{2,1,0} parameter(1)
  %w = bf16[6,48,4]{2,1,0} parameter(2)
  %f = bf16[8,512]{1,0} fusion(%p, %p), kind=kOutput, calls=%product, backend_config={"estimated_cycles":"1000"}
  %s = f32[64]{0} fusion(%p), kind=kCustom, calls=%summed, backend_config={"estimated_cycles":"10"}
  %nested = (s32[], bf16[8,128]) while(%p), condition=%until, body=%inner
  ROOT %t = (s32[], bf16[8,128]) tuple(%p)
}

ENTRY %main (x: bf16[8,128]) -> bf16[8,128] {
  %x = bf16[8,128]{1,0} parameter(0)
  %w = (s32[], bf16[8,128]) while(%x), condition=%condition, body=%body
  %g = (bf16[16,128]{1,0}, bf16[128,128]{1,0}) all-gather-start(%x), channel_id=1, replica_groups=[4,8]<=[32], dimensions={0}
  %c = bf16[8,128]{1,0} copy(%x), backend_config={"estimated_cycles":"20"}
  %done = bf16[128,128]{1,0} all-gather-done(%g)
  %begun = f32[64]{0} fusion(%x), kind=kCustom, calls=%carries
  %one = f32[64]{0} fusion(%x), kind=kOutput, calls=%carries, backend_config={"estimated_cycles":"300"}
  %two = f32[64]{0} fusion(%x), kind=kOutput, calls=%carries_two, backend_config={"estimated_cycles":"500"}
  %ended = f32[64]{0} fusion(%x), kind=kCustom, calls=%carries
  %scattered = f32[100]{0} reduce-scatter(%x), channel_id=2, replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
  ROOT %r = bf16[8,128]{1,0} copy(%x), backend_config={"estimated_cycles":"7"}
}
"""
NO_ESTIMATE = f'backend_config={{"estimated_cycles":"{2**63 - 1}"}}'


def test_the_costs_of_a_loop_body_count_once_per_iteration():
    program = read_program(PROGRAM, guessed_trips=3)
    assert program.cycles == 40 * (1000 + 10 + 3 * 5) + 20 + 300 + 500 + 7
    assert program.matmul_cycles == 40 * 1000 + 300 + 500
    assert program.kernels == {"splash_fwd": 40, "kernel": 120}
    assert program.num_guessed_loops == 1


def test_flops_of_a_convolution_do_not_count_padding():
    plain, heads = 2 * 8 * 128 * 512, 2 * 2 * 48 * 6 * 4  # all but one position of the window of 48 are on padding
    assert read_program(PROGRAM, guessed_trips=3).flops == 40 * (plain + heads)


def test_a_matrix_product_without_an_estimate_gets_cycles_from_its_flops():
    without_cycles = PROGRAM.replace(
        'calls=%product, backend_config={"estimated_cycles":"1000"}', f"calls=%product, {NO_ESTIMATE}"
    )
    assert without_cycles != PROGRAM
    known, found = read_program(PROGRAM, guessed_trips=3), read_program(without_cycles, 3, flops_per_cycle=8 * 128.0)
    assert found.cycles - found.matmul_cycles == known.cycles - known.matmul_cycles
    assert found.matmul_cycles == known.matmul_cycles + 40 * (2 * 512 - 1000)


def test_collectives_have_the_bytes_of_the_full_array_and_their_overlapped_cycles():
    collectives = read_program(PROGRAM, 3).collectives
    found = {(each.kind, each.num_runs, each.num_bytes): each.overlapped_cycles for each in collectives}
    assert found == {
        ("all-gather", 40, 128 * 512 * 2): 40 * 1000,  # inside a matrix product
        ("reduce-scatter", 40, 512 * 4): 40 * 10,  # an all-reduce followed by a slice
        ("all-gather", 1, 128 * 128 * 2): 20,  # overlaps with what is between its start and its end
        ("reduce-scatter", 1, 8 * 64 * 4): 300 + 500 // 2,  # with two products, one shared with another collective
        ("all-gather", 1, 512 * 4): 500 // 2,
        ("reduce-scatter", 1, 8 * 100 * 4): 0,  # written with the size of what each device receives; exposed
    }


def test_only_exposed_collectives_take_time():
    topology = parse_topology("v5e:4x8")
    gather = Collective(kind="all-gather", num_bytes=32 * 10**9, group_size=32, num_runs=1, overlapped_cycles=0)
    seconds = collective_time_s(gather, topology)
    assert seconds == pytest.approx(31e9 / (2 * 45e9), rel=1e-3)
    for overlapped_s in (0.0, 0.1, 1.0):
        overlapped = dataclasses.replace(gather, overlapped_cycles=int(overlapped_s * 1.503e9))
        program = CompiledProgram(
            cycles=0, matmul_cycles=0, flops=0.0, kernels={}, collectives=(gather, overlapped), num_guessed_loops=0
        )
        found = estimate_time(program, topology, 0.0)
        assert found.exposed_s == pytest.approx(seconds + max(seconds - overlapped_s, 0.0), abs=1e-6)
        assert found.total_s == found.exposed_s and found.hidden_s == pytest.approx(2 * seconds - found.exposed_s)
    reduced = dataclasses.replace(gather, kind="all-reduce")
    assert collective_time_s(reduced, topology) == pytest.approx(2 * seconds, rel=1e-3)
    assert estimate_time(program, parse_topology("h100:8"), 0.0) is None  # its compiler reports no cycles


REPORT = """Memory Space: default (color=0)
Total bytes: 21931730944 (20.42GiB)
  cumulative_size;       size;       offset; used_by_n_values; shapes_list
  ------------------------------------------------------------
    3.75GiB( 23%);    3.75GiB;      1720320;               23; 3xf32[49408,6144], 5xbf16[40,1,2048,24576]
    4.88GiB( 30%);  960.00MiB;   4028252160;                7; bf16[1,24576,6144]
  The rest 416 values are less than 5% of the total size and not shown.

  cumulative_size;       size;       offset; used_by_n_values; shapes_list
  ------------------------------------------------------------
  720.00MiB(100%);  720.00MiB;            0;                3; 3xf32[40,192,24576]

Memory Space: vmem (color=1)
Total bytes: 61669376 (58.81MiB)
"""


def test_a_memory_report_is_parsed_once_it_is_complete():
    total, largest = parse_memory_report(REPORT, 5)
    assert total == 21931730944
    assert [buffer.num_bytes for buffer in largest] == [int(3.75 * 2**30), 960 * 2**20]
    assert largest[0].values == "3xf32[49408,6144], 5xbf16[40,1,2048,24576]"
    assert len(parse_memory_report(REPORT, 1)[1]) == 1
    assert parse_memory_report(REPORT[:30], 5) is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("the total memory required for HLO temporaries (20.42G) exceeds available HBM (15.75G).", None),
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total (20.5G) exceeds available HBM (15.75G).", 20.5),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.25G of 15.75G hbm.",
            17.25,
        ),
        ("INTERNAL: something else", None),
    ],
)
def test_the_required_memory_is_parsed_from_an_error(message, expected):
    assert parse_required_bytes(message) == (None if expected is None else int(expected * 2**30))
