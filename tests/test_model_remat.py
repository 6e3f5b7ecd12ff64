"""What the backward pass keeps, on the device or on the host, changes neither the loss nor a gradient."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from splash_cases import architecture, parameters, rows

from wizardcoder_jax.config import LoraConfig, Remat
from wizardcoder_jax.model.lora import abstract_adapted
from wizardcoder_jax.model.remat import ATTENDED, INPUT, MIDDLE, QKV, REMAT, UP
from wizardcoder_jax.model.transformer import abstract_transformer
from wizardcoder_jax.sharding import RULES
from wizardcoder_jax.training.loss import Batch, LossOptions, weighted_loss

CHOICES = [remat for remat in typing.get_args(Remat) if remat != "none"]


def model_of(name, rank=None):
    arch, rules = architecture(name), RULES["fsdp"]
    shapes = abstract_transformer(arch, rules) if rank is None else abstract_adapted(arch, rules, LoraConfig(rank=rank))
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype)  # noqa: E731
    return jax.tree.unflatten(treedef, parameters(arch) if rank is None else [draw(leaf) for leaf in leaves])


def loss_and_gradients(model, remat, kind):
    options = LossOptions(dtype=jnp.float32, remat=remat, attention=kind)
    batch = Batch(**rows(model.arch))
    return jax.jit(jax.value_and_grad(lambda model: weighted_loss(model, batch, options), allow_int=True))(model)


def test_the_table_has_every_choice():
    assert set(REMAT) == set(CHOICES)
    for kept in REMAT.values():
        assert not set(kept.on_device) & set(kept.on_host)
        assert {*kept.on_device, *kept.on_host} <= {INPUT, QKV, ATTENDED, MIDDLE, UP}


@pytest.mark.parametrize("kind", ["dot", "splash"])
@pytest.mark.parametrize("name", ["multi-query, learned", "grouped-query, rope"])
def test_every_choice_has_the_loss_and_the_gradients_of_keeping_all(name, kind):
    model = model_of(name)
    loss, grads = loss_and_gradients(model, "none", kind)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
    for remat in CHOICES:
        other_loss, others = loss_and_gradients(model, remat, kind)
        assert float(other_loss) == pytest.approx(float(loss), abs=1e-6), remat
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * largest), others, grads)
