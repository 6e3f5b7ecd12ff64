"""Fused attention kernels against matrix products, and packed rows against separate ones.

On CPU splash is interpreted, and JAX replaces cuDNN's kernel with matrix products.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.splash_cases import ARCHITECTURES, LENGTH, PARTS, architecture, parameters, rows
from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.models import splash_attention
from wizardcoder_jax.models.transformer import abstract_transformer
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy


@pytest.fixture(autouse=True)
def several_blocks_in_a_row(monkeypatch):
    monkeypatch.setattr(splash_attention, "BLOCK_SIZES", (128,))


DEFAULT = ("multi-query, learned", "grouped-query, rope, window")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in DEFAULT else pytest.mark.slow) for name in ARCHITECTURES],
)
def model(request):
    arch = architecture(request.param)
    return jax.tree.unflatten(jax.tree.structure(abstract_transformer(arch, RULES["fsdp"])), parameters(arch))


@jax.jit(static_argnames=("kind",))
def hidden_states(model, batch, kind):
    return model(batch.tokens, batch.positions, batch.segment_ids, dtype=jnp.float32, attention=kind)


@jax.jit(static_argnames=("kind",))
def log_probabilities(model, batch, kind):
    logs = jax.nn.log_softmax(model.logits(hidden_states(model, batch, kind)))
    return jnp.take_along_axis(logs, batch.targets[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("kernel", ["splash", "cudnn"])
def test_loss_and_gradients_of_a_kernel_equal_those_of_matrix_products(model, kernel):
    """Rows end in padding, for which all results must be finite."""
    batch, found = Batch(**rows(model.arch)), {}
    for kind in ("dot", kernel):
        options = LossOptions(dtype=jnp.float32, remat="full", attention=kind)
        found[kind] = jax.jit(jax.value_and_grad(lambda model, options=options: weighted_cross_entropy(model, batch, options)))(
            model
        )
    assert float(found[kernel][0]) == pytest.approx(float(found["dot"][0]), abs=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(found["dot"][1]))
    assert largest > 0.03

    def compare(ours, expected):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)

    jax.tree.map(compare, found[kernel][1], found["dot"][1])


@pytest.mark.parametrize("kind", ["dot", "splash", "cudnn"])
def test_packed_examples_have_the_log_probabilities_of_separate_ones(model, kind):
    packed = Batch(**rows(model.arch))
    packed_logs, start = log_probabilities(model, packed, kind), 0
    for length in PARTS[:-1]:
        here = slice(start, start + length)
        alone = {name: np.zeros((2, LENGTH), np.int32) for name in ("tokens", "targets", "segment_ids", "positions")}
        for name in ("tokens", "targets", "positions"):
            alone[name][:, :length] = getattr(packed, name)[:, here]
        alone["segment_ids"][:, :length] = 1
        separate = log_probabilities(model, packed._replace(**alone), kind)[:, :length]
        np.testing.assert_allclose(packed_logs[:, here], separate, rtol=0, atol=1e-5)
        start += length


@pytest.mark.parametrize("kind", ["dot", "splash", "cudnn"])
def test_hidden_states_do_not_depend_on_other_segments(model, kind):
    batch = Batch(**rows(model.arch))
    changed = np.array(batch.tokens)
    middle = batch.segment_ids == 2
    changed[middle] = (changed[middle] + 1) % model.arch.vocab_size
    before, after = (hidden_states(model, batch._replace(tokens=tokens), kind) for tokens in (batch.tokens, changed))
    np.testing.assert_array_equal(before[~middle], after[~middle])
    assert (np.asarray(before)[middle] != np.asarray(after)[middle]).any(-1).all()
