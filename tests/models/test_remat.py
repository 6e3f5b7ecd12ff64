"""Rematerialization saves the activations of the policy, and changes neither the loss nor a gradient."""

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

POLICIES = [remat for remat in typing.get_args(Remat) if remat != "none"]


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
    """Return the loss, and the gradients of float32 parameters."""
    options = LossOptions(dtype=jnp.float32, remat=remat, attention=kind)
    batch = Batch(**rows(model.arch))
    leaves, treedef = jax.tree.flatten(model)
    is_float = [leaf.dtype == jnp.float32 for leaf in leaves]

    def loss(floats):
        rest = iter(floats)
        whole = [next(rest) if trained else leaf for leaf, trained in zip(leaves, is_float, strict=True)]
        return weighted_cross_entropy(jax.tree.unflatten(treedef, whole), batch, options)

    return jax.jit(jax.value_and_grad(loss))([leaf for leaf, trained in zip(leaves, is_float, strict=True) if trained])


def test_every_policy_is_defined():
    assert set(REMAT_POLICIES) == set(POLICIES)
    for saved in REMAT_POLICIES.values():
        assert not set(saved.on_device) & set(saved.on_host)
        assert {*saved.on_device, *saved.on_host} <= {INPUT, QKV, ATTENDED, MIDDLE, UP}


@pytest.mark.parametrize(
    ("case", "policies"),
    [
        ("plain", ["full", "offload_mlp"]),
        ("splash, adapters over int8", ["attention"]),
        *(pytest.param(case, POLICIES, marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_policies_have_the_loss_and_gradients_of_saving_everything(case, policies):
    name, kind, rank = CASES[case]
    model = model_of(name, rank)
    loss, grads = loss_and_gradients(model, "none", kind)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
    assert largest > 0.03
    for remat in policies:
        other_loss, others = loss_and_gradients(model, remat, kind)
        assert float(other_loss) == pytest.approx(float(loss), abs=1e-6), remat
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * largest), others, grads)


@pytest.mark.parametrize("remat", POLICIES)
def test_the_activations_of_the_policy_are_saved(remat):
    """According to JAX's list of residuals."""
    model, batch = model_of("multi-query, learned", None), Batch(**rows(architecture("multi-query, learned")))
    options = LossOptions(dtype=jnp.float32, remat=remat, attention="dot")
    loss = lambda model: weighted_cross_entropy(model.unstack_layers(), batch, options)  # noqa: E731
    num_tokens, output = np.prod(batch.tokens.shape), io.StringIO()
    with contextlib.redirect_stdout(output):
        jax.ad_checkpoint.print_saved_residuals(loss, model)
    arch, saved = model.arch, REMAT_POLICIES[remat]
    width = {
        INPUT: arch.embed_dim,
        QKV: (arch.num_heads + 2 * arch.num_kv_heads) * arch.head_dim,
        ATTENDED: arch.num_heads * arch.head_dim,
        MIDDLE: arch.embed_dim,
        UP: arch.mlp_dim,
    }
    found = collections.Counter()
    for line in output.getvalue().splitlines():
        name = re.search(r"named '(\w+)'", line)
        if name:
            found[name[1]] += np.prod([int(dim) for dim in re.search(r"\[([\d,]+)\]", line)[1].split(",")])
    assert found == {name: arch.num_layers * num_tokens * width[name] for name in saved.on_device}
    num_offloaded = str(jax.make_jaxpr(jax.grad(loss))(model)).count("Host")
    assert num_offloaded == arch.num_layers * sum({QKV: 3}.get(name, 1) for name in saved.on_host)
