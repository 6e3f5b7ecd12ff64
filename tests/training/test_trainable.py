import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny_steps import ARCH, OPTIMIZERS, RULES_HERE, Training, bits, config, model, rows, some_slow
from wizardcoder_jax.config import LoraConfig, TrainConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy
from wizardcoder_jax.training.trainable import Partition, abstract_model

FROZEN = ("tokens", "*.attention.*", "*norm*")


def arrays(params):
    return {name: np.asarray(param[...]) for name, param in params.items()}


@pytest.fixture(scope="module")
def true_grads():
    """Return the gradients of all weights by name, with nothing frozen."""
    whole = model()
    grads = jax.jit(jax.grad(lambda model: weighted_cross_entropy(model, Batch(**rows()), LossOptions(dtype=jnp.float32))))(
        whole
    )
    return arrays(Partition.of(whole, config()).split(grads)[0])


def norm(grads):
    return math.sqrt(sum(float(np.square(grad.astype(np.float64)).sum()) for grad in grads))


def test_frozen_weights_stay_unchanged_and_have_no_moments_and_no_effect_on_the_norm(true_grads):
    training = Training(config({"weight_decay": 0.5, "ema_decay": 0.9}, freeze=FROZEN))
    state = training.state
    kinds = {name for name in true_grads if name == "tokens" or ".attention." in name or "norm" in name}
    assert set(state.frozen) == kinds and set(state.trained) == set(true_grads) - kinds and state.trained
    frozen, trained = bits(state.frozen), bits(state.trained)
    shapes = {leaf.shape for leaf in jax.tree.leaves((state.opt_state, state.ema)) if leaf.ndim}
    assert shapes == {leaf.shape for leaf in jax.tree.leaves(state.trained)}
    found = training.step(rows())
    assert found.grad_norm == pytest.approx(norm(true_grads[name] for name in set(true_grads) - kinds), rel=1e-5)
    assert bits(training.state.frozen) == frozen
    assert all(value != trained[name] for name, value in bits(training.state.trained).items())


def test_frozen_weights_may_have_any_dtype():
    whole = model()
    for param in (whole.tokens, whole.blocks.mlp.up.kernel):
        param.set_value(param[...].astype(jnp.bfloat16))
    training = Training(config(freeze=("tokens", "*.up.kernel")), whole)
    frozen, losses = bits(training.state.frozen), [float(training.step(rows()).loss) for _ in range(5)]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(training.state.frozen)} == {"bfloat16"}
    assert bits(training.state.frozen) == frozen and losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(("name", "dtype"), some_slow(OPTIMIZERS))
def test_frozen_layers_stay_unchanged_under_every_optimizer(name, dtype):
    optim = {"name": name, "moment_dtype": dtype, "weight_decay": 0.5, "clip_norm": 0.1}
    training = Training(config(optim, freeze_layers=1))
    before = arrays(training.state.trained)
    for seed in range(3):
        training.step(rows(seed))
    for weight, after in arrays(training.state.trained).items():
        if weight.startswith("blocks."):
            np.testing.assert_array_equal(after[0], before[weight][0])
            assert (after[1] != before[weight][1]).mean() > 0.9, weight
        else:
            assert (after != before[weight]).any()


def test_frozen_layers_have_no_moments_and_no_effect_on_the_norm(true_grads):
    training = Training(config({"b1": 0.0, "clip_norm": 0.1}, freeze_layers=1))
    found = training.step(rows())
    moving = {name: grad[1:] if name.startswith("blocks.") else grad for name, grad in true_grads.items()}
    expected = norm(moving.values())
    assert expected < 0.99 * norm(true_grads.values())
    assert found.grad_norm == pytest.approx(expected, rel=1e-5)
    [moments] = [node.mu for node in jax.tree.leaves(training.state.opt_state, is_leaf=has_moments) if has_moments(node)]
    for name, moment in arrays(moments).items():
        if name.startswith("blocks."):
            assert not moment[0].any()
            moment = moment[1:]
        clipped = 0.1 / expected * moving[name]  # clipped by the norm of the trained layers
        np.testing.assert_allclose(moment, clipped, rtol=1e-4, atol=1e-7)


def has_moments(node):
    return hasattr(node, "mu")


def test_the_moving_average_follows_the_weights():
    training = Training(config({"ema_decay": 0.9}, freeze=("tokens",)))
    expected = arrays(training.state.trained)
    assert bits(training.state.ema) == bits(training.state.trained)
    for seed in range(4):
        training.step(rows(seed))
        now = arrays(training.state.trained)
        expected = {name: 0.9 * mean + 0.1 * now[name].astype(np.float64) for name, mean in expected.items()}
    found = arrays(training.state.ema)
    assert found.keys() == expected.keys() and {mean.dtype.name for mean in found.values()} == {"float32"}
    for name, mean in expected.items():
        np.testing.assert_allclose(found[name], mean, rtol=1e-5, atol=1e-7)
    averaged = training.partition.join(training.state.ema, training.state.frozen)
    assert averaged.arch == ARCH and bits(averaged.tokens) == bits(training.state.frozen["tokens"])
    np.testing.assert_array_equal(averaged.blocks.mlp.up.kernel[...], found["blocks.mlp.up.kernel"])


def test_splitting_and_joining_a_model_returns_it_unchanged():
    whole = model()
    for freeze in ((), FROZEN):
        partition = Partition.of(whole, config(freeze=freeze))
        again = partition.join(*partition.split(whole))
        assert bits(again) == bits(whole) and jax.tree.structure(again) == jax.tree.structure(whole)
        assert again.blocks.mlp.up.kernel.axes == ("embed", "mlp")


@pytest.mark.parametrize("base_weights", ["float32", "bfloat16", "int8", "nf4"])
def test_only_the_adapters_of_a_model_with_adapters_are_trained(base_weights):
    settings = TrainConfig(lora=LoraConfig(rank=2, base_weights=base_weights))
    arch = dataclasses.replace(ARCH, embed_dim=64, head_dim=16)
    subject = abstract_model(arch, RULES_HERE, settings)
    trained, frozen = Partition.of(subject, settings).split(subject)
    assert {name.rpartition(".")[2] for name in trained} == {"lora_a", "lora_b"}
    assert len(trained) == 2 * 6 and not any("lora" in name for name in frozen)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(trained)} == {"float32"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"freeze": ("blocks.mlp.upp.kernel",)}, "'blocks.mlp.upp.kernel' matches no weight.*blocks.mlp.up.kernel"),
        ({"freeze": ("tokens", "head")}, "'head' matches no weight of this model"),
        ({"freeze": ("*",)}, "leaves no weight to train"),
        (
            {"freeze": ("tokens", "final*"), "freeze_layers": 2},
            "freeze_layers 2 freezes all 2 layers and leaves no weight",
        ),
    ],
)
def test_freezing_unknown_weights_or_everything_is_refused(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        Partition.of(model(), config(**changes))
