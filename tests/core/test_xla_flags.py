"""The XLA options with which programs are compiled."""

import jax
import jax.numpy as jnp
import pytest

from wizardcoder_jax.core import xla_flags
from wizardcoder_jax.core.accelerators import ACCELERATORS
from wizardcoder_jax.core.xla_flags import TRAINING_OPTIONS, YNNPACK_MIN_ROWS, sampling_options, training_options

pytestmark = pytest.mark.quick


def test_the_table_contains_known_chips_only():
    assert TRAINING_OPTIONS.keys() <= {chip.device_kind for chip in ACCELERATORS.values()}
    assert training_options("cpu") == {}


def test_products_with_few_rows_avoid_a_library_that_is_slow_for_them(monkeypatch):
    monkeypatch.setattr(xla_flags, "_has_avx2_at_most", lambda: True)
    assert sampling_options("cpu", YNNPACK_MIN_ROWS) == {}
    rows, kernel = jnp.ones((YNNPACK_MIN_ROWS - 1, 576)), jnp.ones((576, 1536))
    product = jax.jit(jnp.dot, compiler_options=sampling_options("cpu", len(rows)))
    assert "ynn" not in product.lower(rows, kernel).compile().as_text()
    assert (product(rows, kernel) == 576).all()


def test_the_number_of_rows_makes_no_difference_elsewhere(monkeypatch):
    monkeypatch.setattr(xla_flags, "_has_avx2_at_most", lambda: False)
    assert sampling_options("cpu", 1) == {}
    assert sampling_options("TPU v5 lite", 1) == sampling_options("TPU v5 lite", 64) != {}
    assert sampling_options("an unknown kind", 1) == {}
