"""Random values are a fixed function of names: a change of them would change samples, data and ledgers of resumed runs."""

import hashlib

import pytest

from wizardcoder_jax.core.seeded_random import random_bits, random_fraction, random_key

pytestmark = pytest.mark.quick


def words(text):
    """The first two 32-bit words of a text's SHA-256."""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")


def test_the_key_of_a_sample_depends_on_seed_task_and_index():
    assert random_key(7, "HumanEval/3", 2) == words("7/HumanEval/3/2")


def test_the_key_of_a_served_completion_depends_on_seed_index_and_prompt():
    assert random_key(7, 1, "5,6,7") == words("7/1/5,6,7")


def test_the_key_of_a_teachers_answer_depends_on_draw_and_prompt():
    assert random_key("draw", "a lone surrogate \ud800", separator="\0") == words("draw\0a lone surrogate \ud800")


def test_bits_and_fractions_have_fixed_values():
    first, second = words("0/seed-1/1/breadth")
    bits = (first << 32) | second
    assert random_bits(0, "seed-1", 1, "breadth") == bits
    assert random_fraction(0, "seed-1", 1, "breadth") == (bits >> 11) / 2**53
    assert random_bits("seed-1") == 2**32 * words("seed-1")[0] + words("seed-1")[1]


def test_fractions_are_uniform():
    fractions = sorted(random_fraction("run", i) for i in range(2000))
    assert max(abs(fraction - i / 2000) for i, fraction in enumerate(fractions)) < 0.05
