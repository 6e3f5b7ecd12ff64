"""The regularization terms of the loss equal torch's; dropout and noise do not depend on how a step is split."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.helpers.splash_cases import architecture, parameters, rows
from wizardcoder_jax.config import RegularizationConfig, TrainConfig
from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.models.transformer import abstract_transformer
from wizardcoder_jax.training.objectives.chunked_cross_entropy import CrossEntropyOptions, chunked_cross_entropy
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy

VOCAB, PADDED = 301, 512


def arrays():
    rng = np.random.default_rng(0)
    hidden, table = rng.normal(size=(3, 40, 16)).astype(np.float32), rng.normal(size=(PADDED, 16)).astype(np.float32)
    targets = rng.integers(0, VOCAB, (3, 40)).astype(np.int32)
    weights = (rng.random((3, 40)) * (rng.random((3, 40)) < 0.5)).astype(np.float32)
    return hidden, table, targets, weights


@pytest.mark.parametrize("chunk", [None, 7, 40])
@pytest.mark.parametrize(("z_loss", "smoothing"), [(0.0, 0.0), (0.01, 0.0), (0.0, 0.1), (0.02, 0.3)])
def test_z_loss_and_label_smoothing_and_their_gradients_equal_torchs(z_loss, smoothing, chunk):
    hidden, table, targets, weights = arrays()
    states, rows = (torch.tensor(array, requires_grad=True) for array in (hidden, table))
    logits = states @ rows[:VOCAB].T
    flat, wanted = logits.reshape(-1, VOCAB), torch.tensor(targets).long().reshape(-1)
    costs = torch.nn.functional.cross_entropy(flat, wanted, reduction="none", label_smoothing=smoothing)
    expected = (torch.tensor(weights).reshape(-1) * (costs + z_loss * torch.logsumexp(flat, -1) ** 2)).sum()
    expected.backward()
    ours = jax.jit(jax.value_and_grad(chunked_cross_entropy, argnums=(0, 1)), static_argnums=(4, 5, 6))
    loss, grads = ours(hidden, table, targets, weights, CrossEntropyOptions(VOCAB, z_loss, smoothing), RULES["fsdp"], chunk)
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    for grad, other in zip(grads, (states.grad.numpy(), rows.grad.numpy()), strict=True):
        np.testing.assert_allclose(grad, other, rtol=0, atol=1e-5 * np.abs(other).max())
    assert not np.asarray(grads[1])[VOCAB:].any()  # padding of the vocabulary is excluded from smoothing


@pytest.fixture(scope="module")
def model():
    arch = architecture("multi-query, learned")
    return jax.tree.unflatten(jax.tree.structure(abstract_transformer(arch, RULES["fsdp"])), parameters(arch))


@jax.jit(static_argnames=("options", "unroll"))
def loss_and_gradients(model, batch, options, unroll=False):
    loss = lambda model: weighted_cross_entropy(model.unstack_layers() if unroll else model, batch, options)  # noqa: E731
    return jax.value_and_grad(loss)(model)


def small_rows(model, batch=4):
    """Return rows of 96 positions with two segments each."""
    return {name: array[:, :96] if array.ndim == 2 else array for name, array in rows(model.arch, batch).items()}


NOISY = LossOptions(dtype=jnp.float32, attention="dot", dropout=0.3, neftune_alpha=5.0)


def assert_equal(found, expected):
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest), found[1], expected[1])


def test_dropout_and_noise_do_not_depend_on_remat_unrolling_or_microbatches(model):
    batch = Batch(**small_rows(model))
    expected = loss_and_gradients(model, batch, NOISY)
    recomputed = dataclasses.replace(NOISY, remat="full")
    assert_equal(loss_and_gradients(model, batch, recomputed, unroll=True), expected)
    halves = [jax.tree.map(lambda array, part=part: array[part], batch) for part in (slice(2), slice(2, 4))]
    assert_equal(jax.tree.map(jnp.add, *(loss_and_gradients(model, half, recomputed) for half in halves)), expected)


def test_different_seeds_give_different_dropout_and_noise(model):
    batch = Batch(**small_rows(model))
    for added in ({"dropout": 0.3}, {"neftune_alpha": 5.0}):
        options = dataclasses.replace(NOISY.without_regularization(), **added)
        losses = {float(loss_and_gradients(model, batch._replace(seeds=batch.seeds + i), options)[0]) for i in (0, 0, 7)}
        assert len(losses) == 2


def test_options_follow_the_settings_and_those_of_validation_have_no_regularization():
    added = RegularizationConfig(dropout=0.1, neftune_alpha=5.0, z_loss=1e-4, label_smoothing=0.1)
    options = LossOptions.from_config(TrainConfig(regularisation=added, attention="dot", loss_chunk=256))
    wanted = {"dtype": jnp.dtype("bfloat16"), "remat": "full", "attention": "dot", "chunk": 256, **dataclasses.asdict(added)}
    assert dataclasses.asdict(options) == wanted
    assert options.without_regularization() == LossOptions(dtype=jnp.dtype("bfloat16"), attention="dot", chunk=256)
