"""The cast of weights equals plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wizardcoder_jax.models.layers import cast_weight


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_cast_weight_and_its_gradient_equal_astype(stored, dtype):
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.standard_normal((33, 7)) * 10.0 ** rng.integers(-6, 5, (33, 7)), stored)
    factor = jnp.asarray(rng.standard_normal((33, 7)), dtype)
    found, gradient = jax.jit(jax.value_and_grad(lambda weight: (cast_weight(weight, dtype) * factor).sum()))(weight)
    expected, other = jax.jit(jax.value_and_grad(lambda weight: (weight.astype(dtype) * factor).sum()))(weight)
    np.testing.assert_array_equal(jax.jit(lambda weight: cast_weight(weight, dtype))(weight), weight.astype(dtype))
    assert found == expected
    assert gradient.dtype == weight.dtype
    np.testing.assert_array_equal(gradient, other)
