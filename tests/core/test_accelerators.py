"""The table of accelerators: JAX's names find their chip, and the figures are consistent."""

import pytest

from wizardcoder_jax.core.accelerators import ACCELERATORS, GIB, find_accelerator

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_chip_is_found_by_jaxs_name(name):
    assert ACCELERATORS[name].name == name
    assert find_accelerator(ACCELERATORS[name].device_kind) is ACCELERATORS[name]


def test_a_cpu_is_not_an_accelerator():
    assert find_accelerator("cpu") is None


# Ports of a chip times Gbit/s of each in one direction, from Google's pages about the chips (e.g. v5e: 4 x 400).
@pytest.mark.parametrize(("name", "links_gbit_s"), [("v4", 2400), ("v5e", 1600), ("v5p", 4800), ("v6e", 3200)])
def test_the_links_of_all_axes_are_close_to_the_published_total_and_never_exceed_it(name, links_gbit_s):
    chip = ACCELERATORS[name]
    assert 0.85 < 2 * chip.num_axes * chip.link_bandwidth / (links_gbit_s / 8 * 1e9) <= 1


PUBLISHED_GB = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32, "h100": 80, "h200": 141}


@pytest.mark.parametrize(("name", "published_bytes"), PUBLISHED_GB.items())
def test_a_program_can_use_nearly_all_of_the_published_memory(name, published_bytes):
    assert 0.9 * published_bytes < ACCELERATORS[name].hbm_bytes / GIB <= published_bytes


def test_only_tpus_have_a_clock():
    assert {chip.name for chip in ACCELERATORS.values() if chip.clock_hz is None} == {"a100", "h100", "h200"}
