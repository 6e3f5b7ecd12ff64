"""What the backward pass keeps, on the device or on the host, changes neither the loss nor a gradient."""

import collections
import contextlib
import io
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.splash_cases import architecture, parameters, rows
from wizardcoder_jax.config import LoraConfig, Remat
from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.models.lora import add_adapters
from wizardcoder_jax.models.remat import ATTENDED, INPUT, MIDDLE, QKV, REMAT_POLICIES, UP
from wizardcoder_jax.models.transformer import abstract_transformer
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy

CHOICES = [remat for remat in typing.get_args(Remat) if remat != "none"]


CASES = {  # architecture, attention, rank of adapters
    "plain": ("multi-query, learned", "dot", None),
    "splash, gated": ("grouped-query, rope", "splash", None),
    "splash, adapters over int8": ("multi-query, learned", "splash", 4),
}


def model_of(name, rank):
    arch, rules = architecture(name), RULES["fsdp"]
    model = jax.tree.unflatten(jax.tree.structure(abstract_transformer(arch, rules)), parameters(arch))
    if rank is None:
        return model
    model = add_adapters(jax.tree.map(jnp.asarray, model), LoraConfig(rank=rank, base_weights="int8"), jax.random.key(0))
    draw = lambda path, leaf: leaf + 0.1 if "lora_b" in str(path) else leaf  # noqa: E731
    return jax.tree_util.tree_map_with_path(draw, model)


def loss_and_gradients(model, remat, kind):
    """The loss, and the gradients of what is float32."""
    options = LossOptions(dtype=jnp.float32, remat=remat, attention=kind)
    batch = Batch(**rows(model.arch))
    leaves, treedef = jax.tree.flatten(model)
    is_float = [leaf.dtype == jnp.float32 for leaf in leaves]

    def loss(floats):
        rest = iter(floats)
        whole = [next(rest) if mine else leaf for leaf, mine in zip(leaves, is_float, strict=True)]
        return weighted_cross_entropy(jax.tree.unflatten(treedef, whole), batch, options)

    return jax.jit(jax.value_and_grad(loss))([leaf for leaf, mine in zip(leaves, is_float, strict=True) if mine])


def test_the_table_has_every_choice():
    assert set(REMAT_POLICIES) == set(CHOICES)
    for kept in REMAT_POLICIES.values():
        assert not set(kept.on_device) & set(kept.on_host)
        assert {*kept.on_device, *kept.on_host} <= {INPUT, QKV, ATTENDED, MIDDLE, UP}


@pytest.mark.parametrize("case", CASES)
def test_every_choice_has_the_loss_and_the_gradients_of_keeping_all(case):
    name, kind, rank = CASES[case]
    model = model_of(name, rank)
    loss, grads = loss_and_gradients(model, "none", kind)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
    assert largest > 0.03
    for remat in CHOICES:
        other_loss, others = loss_and_gradients(model, remat, kind)
        assert float(other_loss) == pytest.approx(float(loss), abs=1e-6), remat
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * largest), others, grads)


@pytest.mark.parametrize("remat", CHOICES)
def test_what_is_kept_is_what_the_table_says(remat):
    """By JAX's own account of what the forward pass hands to the backward pass."""
    model, batch = model_of("multi-query, learned", None), Batch(**rows(architecture("multi-query, learned")))
    options = LossOptions(dtype=jnp.float32, remat=remat, attention="dot")
    loss = lambda model: weighted_cross_entropy(model.unstack_layers(), batch, options)  # noqa: E731
    size, said = np.prod(batch.tokens.shape), io.StringIO()
    with contextlib.redirect_stdout(said):
        jax.ad_checkpoint.print_saved_residuals(loss, model)
    arch, kept = model.arch, REMAT_POLICIES[remat]
    width = {
        INPUT: arch.embed_dim,
        QKV: (arch.num_heads + 2 * arch.num_kv_heads) * arch.head_dim,
        ATTENDED: arch.num_heads * arch.head_dim,
        MIDDLE: arch.embed_dim,
        UP: arch.mlp_dim,
    }
    found = collections.Counter()
    for line in said.getvalue().splitlines():
        name = re.search(r"named '(\w+)'", line)
        if name:
            found[name[1]] += np.prod([int(dim) for dim in re.search(r"\[([\d,]+)\]", line)[1].split(",")])
    assert found == {name: arch.num_layers * size * width[name] for name in kept.on_device}
    moved = str(jax.make_jaxpr(jax.grad(loss))(model)).count("Host")
    assert moved == arch.num_layers * sum({QKV: 3}.get(name, 1) for name in kept.on_host)
