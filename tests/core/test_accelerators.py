"""Of the table of accelerators: that jax's names find their chip, and that no two figures contradict each other."""

import pytest

from wizardcoder_jax.core.accelerators import ACCELERATORS, GIB, find_accelerator


@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_chip_is_found_by_the_name_that_jax_has_for_it(name):
    assert ACCELERATORS[name].name == name
    assert find_accelerator(ACCELERATORS[name].device_kind) is ACCELERATORS[name]


def test_what_jax_runs_on_without_an_accelerator_is_no_chip():
    assert find_accelerator("cpu") is None


# Ports of a chip x Gbit/s of each, one way, as Google's pages of the chips state them together (e.g. v5e: 4 x 400).
@pytest.mark.parametrize(("name", "links_gbit_s"), [("v4", 2400), ("v5e", 1600), ("v5p", 4800), ("v6e", 3200)])
def test_the_links_of_all_axes_come_close_to_the_published_sum_and_never_over_it(name, links_gbit_s):
    chip = ACCELERATORS[name]
    assert 0.85 < 2 * chip.num_axes * chip.link_bandwidth / (links_gbit_s / 8 * 1e9) <= 1


@pytest.mark.parametrize(("name", "published_bytes"), [("v4", 32), ("v5e", 16), ("v5p", 95), ("v6e", 32), ("h100", 80)])
def test_a_program_may_use_nearly_all_of_the_published_memory(name, published_bytes):
    assert 0.9 * published_bytes < ACCELERATORS[name].hbm_bytes / GIB <= published_bytes


def test_figures_of_tpus_alone_have_a_clock():
    assert {chip.name for chip in ACCELERATORS.values() if chip.clock_hz is None} == {"a100", "h100"}
