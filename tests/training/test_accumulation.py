import dataclasses

import numpy as np
import optax
import pytest

from tests.helpers.tiny_steps import Training, config, rows
from wizardcoder_jax.config import RegularizationConfig

# With b1 = 0 the first moments are the gradients.
CONFIG = config({"b1": 0.0})
NOISY = RegularizationConfig(dropout=0.1, neftune_alpha=5.0, z_loss=1e-3, label_smoothing=0.1)


def loss_and_grads(settings):
    training = Training(settings)
    metrics = training.step(rows())
    grads = optax.tree.get(training.state.opt_state, "mu")
    return float(metrics.loss), {name: np.asarray(param[...], np.float64) for name, param in grads.items()}


@pytest.mark.parametrize(
    ("regularisation", "accumulations"),
    [
        pytest.param(RegularizationConfig(), (2, 4, 8), marks=pytest.mark.slow),
        pytest.param(NOISY, (4,)),
        pytest.param(NOISY, (2, 8), marks=pytest.mark.slow),
    ],
    ids=["plain", "noisy", "noisy, more"],
)
def test_loss_and_gradients_are_the_same_for_every_number_of_microbatches(regularisation, accumulations):
    settings = dataclasses.replace(CONFIG, regularisation=regularisation)
    loss, grads = loss_and_grads(settings)
    assert len(grads) > 10
    for accumulation in accumulations:
        other_loss, other = loss_and_grads(dataclasses.replace(settings, accumulation=accumulation))
        assert other_loss == pytest.approx(loss, rel=1e-6)
        assert error(other, grads) <= 1e-6
        for name in grads:
            if "key.bias" not in name:  # a key bias does not change attention scores, so its gradient is rounding noise
                # A larger tolerance for single arrays: terms of a gradient may cancel, but their rounding errors do not.
                assert error({name: other[name]}, {name: grads[name]}) <= 3e-6, (name, accumulation)


def error(found, expected):
    """Return the relative error of all arrays, concatenated to one vector."""
    apart = sum(np.square(found[name] - array).sum() for name, array in expected.items())
    return float(np.sqrt(apart / sum(np.square(array).sum() for array in expected.values())))


def test_microbatches_are_weighted_by_their_supervised_tokens():
    """A mean of means would give the first rows, which have few supervised tokens, as much weight as the last."""
    batch = rows()
    counts = (batch["weights"] > 0).sum(axis=1)
    assert counts[:2].sum() < counts[-2:].sum() / 3
    assert len(np.unique(batch["weights"])) == 2 and batch["weights"].sum() == pytest.approx(1)
