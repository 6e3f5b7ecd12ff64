"""LoRA adapters over float32, bfloat16, int8 and NF4 weights: initialization, gradients, merging, meshes."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.processes import run_python
from wizardcoder_jax.config import LoraConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES
from wizardcoder_jax.models.int8 import quantize_int8
from wizardcoder_jax.models.layers import Projection
from wizardcoder_jax.models.lora import (
    ADAPTER_NAMES,
    abstract_lora_transformer,
    add_adapters,
    add_adapters_on_mesh,
    merge_adapters,
)
from wizardcoder_jax.models.transformer import abstract_transformer

pytestmark = pytest.mark.full_optimization

SIZES = {"vocab_size": 300, "embed_dim": 32, "num_layers": 2, "num_heads": 4, "head_dim": 8, "mlp_dim": 80}
REST = {"max_positions": 64, "norm_eps": 1e-5}
VARIANTS = {
    "gpt_bigcode": {"family": "gpt_bigcode", "num_kv_heads": 1, "mlp": "gelu_tanh", "tie_embeddings": True},
    "starcoder2": {"family": "starcoder2", "num_kv_heads": 2, "mlp": "gelu_tanh", "bias": "all", "tie_embeddings": True},
    "llama": {"family": "llama", "num_kv_heads": 4, "tie_embeddings": False},
    "qwen2": {"family": "qwen2", "num_kv_heads": 2, "tie_embeddings": True},
}
KINDS = ("float32", "bfloat16", "int8", "nf4")
PAIRS = (("gpt_bigcode", "nf4"), ("starcoder2", "int8"), ("llama", "float32"), ("qwen2", "bfloat16"))
# One pair for each family and each kind runs by default, all others are slow.
COMBINATIONS = [
    pytest.param(family, kind, marks=[] if (family, kind) in PAIRS else pytest.mark.slow)
    for family in VARIANTS
    for kind in KINDS
]
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles faster


def arch_of(family):
    return ArchConfig(**{**FAMILIES[family].arch_fields, **SIZES, **REST, **VARIANTS[family]})


def base_of(family):
    """Return a model with random weights, including norms and biases."""
    leaves, structure = jax.tree.flatten(abstract_transformer(arch_of(family), RULES["fsdp"]))
    rng = np.random.default_rng(0)
    scales = [0.2 if leaf.ndim > 2 else 0.05 for leaf in leaves]
    values = [scale * rng.standard_normal(leaf.shape, np.float32) for leaf, scale in zip(leaves, scales, strict=True)]
    model = jax.tree.unflatten(structure, [jnp.asarray(value) for value in values])
    return with_leaves(model, {name: leaf + 1 for name, leaf in by_name(model).items() if "norm.scale" in name})


def by_name(model):
    leaves = jax.tree_util.tree_flatten_with_path(model)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def is_adapter(name):
    return bool(set(name.split(".")) & set(ADAPTER_NAMES))


def with_leaves(model, leaves):
    return jax.tree.unflatten(jax.tree.structure(model), [leaves.get(name, leaf) for name, leaf in by_name(model).items()])


def trained(model):
    """Return the model with adapters as after some training, with b different from zero."""
    found, rng = {name: leaf for name, leaf in by_name(model).items() if ".lora_b" in name}, np.random.default_rng(1)
    return with_leaves(model, {n: jnp.asarray(0.3 * rng.standard_normal(b.shape, np.float32)) for n, b in found.items()})


@functools.cache
def adapted_model(family, kind, **settings):
    lora = LoraConfig(**{"rank": 4, "alpha": 6.0, "base_weights": kind, **settings})
    return jit(lambda model: add_adapters(model, lora, jax.random.key(7)))(base_of(family))


def merge(model):
    return jit(lambda model: merge_adapters(model, jnp.dtype("float32")))(model)


def projections(model):
    modules = (model.blocks.attention, model.blocks.mlp)
    return {name: part for module in modules for name, part in vars(module).items() if isinstance(part, Projection)}


TOKENS = jax.random.randint(jax.random.key(1), (3, 24), 0, 300)
POSITIONS = jnp.broadcast_to(jnp.arange(24), TOKENS.shape)


@jit
def logits(model):
    return model.logits(model(TOKENS, POSITIONS, jnp.ones_like(TOKENS), dtype=jnp.float32))[..., :300]


def loss(model, dtype=jnp.float32, remat="none"):
    """Return the cross-entropy of the next token."""
    hidden = model(TOKENS, POSITIONS, jnp.ones_like(TOKENS), dtype=dtype, remat=remat)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(model.logits(hidden)[:, :-1]), TOKENS[:, 1:, None], axis=-1)
    return -chosen.mean()


def adapter_grads(model, *, unroll=False, **options):
    """Return the gradients with respect to the adapters only."""

    def adapter_loss(adapters):
        whole = with_leaves(model, adapters)
        return loss(whole.unstack_layers() if unroll else whole, **options)

    return jit(jax.grad(adapter_loss))({name: leaf for name, leaf in by_name(model).items() if is_adapter(name)})


@pytest.mark.parametrize("family", VARIANTS)
def test_new_adapters_do_not_change_the_output(family):
    base, model = base_of(family), adapted_model(family, "float32")
    assert len(projections(model)) == (7 if model.arch.mlp == "swiglu" else 6)
    np.testing.assert_array_equal(logits(model), logits(base))
    for name, leaf in by_name(base).items():
        np.testing.assert_array_equal(by_name(model)[name], leaf)


@pytest.mark.parametrize(("family", "kind"), COMBINATIONS)
def test_merging_gives_the_same_logits_from_a_plain_model(family, kind):
    model = trained(adapted_model(family, kind))
    plain, before = merge(model), logits(model)
    shapes = abstract_transformer(model.arch, model.rules)
    assert jax.tree.structure(plain) == jax.tree.structure(shapes)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(plain))
    np.testing.assert_allclose(logits(plain), before, rtol=0, atol=1e-4)
    assert np.abs(before - logits(adapted_model(family, kind))).max() > 0.1  # the adapters have an effect


@pytest.mark.parametrize("family", VARIANTS)
def test_a_merged_kernel_is_the_base_and_a_times_b_times_alpha_over_rank(family):
    base, model = projections(base_of(family)), trained(adapted_model(family, "float32"))
    plain = projections(merge(model))
    for name, projection in projections(model).items():
        a, b = np.asarray(projection.lora_a[...], np.float64), np.asarray(projection.lora_b[...], np.float64)
        kernel = np.asarray(base[name].kernel[...], np.float64)
        layers = [6.0 / 4 * a[i].reshape(-1, 4) @ b[i].reshape(4, -1) for i in range(2)]
        expected = kernel + np.stack(layers).reshape(kernel.shape)
        np.testing.assert_allclose(plain[name].kernel[...], expected, atol=1e-5)


@pytest.mark.parametrize(("family", "kind"), PAIRS)
def test_gradients_follow_from_those_of_the_merged_model_by_the_chain_rule(family, kind):
    model = trained(adapted_model(family, kind))
    plain = merge(model)
    by_kernel = by_name(jit(jax.grad(loss))(plain))
    found = {
        how: adapter_grads(model, remat=remat, unroll=unroll)
        for how, remat, unroll in (("scan", "none", False), ("remat", "full", False), ("unrolled", "full", True))
    }
    for name in (name for name in by_name(model) if ".lora_a" in name):
        adapters = {which: np.asarray(by_name(model)[name.replace("lora_a", which)]) for which in ADAPTER_NAMES}
        kernel_grad = np.asarray(by_kernel[name.replace("lora_a", "kernel")])
        for i in range(2):
            a, b = adapters["lora_a"][i].reshape(-1, 4), adapters["lora_b"][i].reshape(4, -1)
            grad = 6.0 / 4 * kernel_grad[i].reshape(len(a), -1)
            for which, expected in (("lora_a", grad @ b.T), ("lora_b", a.T @ grad)):
                for how, grads in found.items():
                    ours = np.asarray(grads[name.replace("lora_a", which)])[i].reshape(expected.shape)
                    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=2e-6, err_msg=f"{name} {which} {how}")


@pytest.mark.parametrize("kind", ["bfloat16", "int8", "nf4"])
def test_gradients_in_bfloat16_are_close_to_those_in_float32(kind):
    model = trained(adapted_model("qwen2", kind))
    exact = adapter_grads(model)
    for name, grad in adapter_grads(model, dtype=jnp.bfloat16, remat="full").items():
        assert grad.dtype == jnp.float32
        ours, wanted = np.asarray(grad).ravel(), np.asarray(exact[name]).ravel()
        assert ours @ wanted > 0.99 * np.linalg.norm(ours) * np.linalg.norm(wanted), name


def test_initial_adapters_are_uniform_within_the_bound_and_depend_only_on_key_and_name():
    model, again = adapted_model("llama", "float32", rank=64), adapted_model("llama", "nf4", rank=64, targets=("down",))
    other = add_adapters_on_mesh(base_of("llama"), LoraConfig(rank=64), jax.random.key(8), make_mesh("1x1"))
    drawn = {}
    for name, projection in projections(model).items():
        a = np.asarray(projection.lora_a[...])
        num_inputs = np.prod(projection.kernel.shape[1 : 1 + projection.num_in])
        assert a.shape == (2, *projection.kernel.shape[1 : 1 + projection.num_in], 64)
        bound = num_inputs**-0.5
        assert 0.99 * bound < np.abs(a).max() <= bound
        assert a.std() == pytest.approx(bound / 3**0.5, rel=0.05) and abs(a.mean()) < 0.05 * bound
        assert not np.asarray(projection.lora_b[...]).any()
        drawn[name] = a
        assert np.abs(a - projections(other)[name].lora_a[...]).max() > bound
    np.testing.assert_array_equal(projections(again)["down"].lora_a[...], drawn["down"])
    assert np.abs(drawn["gate"] - drawn["up"]).max() > 0.1
    assert np.abs(drawn["up"][0] - drawn["up"][1]).max() > 0.1


def test_only_targets_have_adapters():
    model = adapted_model("gpt_bigcode", "int8", targets=("query", "value", "gate"))
    assert {name for name, part in projections(model).items() if part.lora_a is not None} == {"query", "value"}
    assert {name.split(".")[-3] for name in by_name(model) if is_adapter(name)} == {"query", "value"}


def test_targets_that_the_model_lacks_are_rejected():
    with pytest.raises(InputError, match=r"lora.targets gate: this model has no such projection; choose from query.*down"):
        adapted_model("gpt_bigcode", "float32", targets=("gate",))


@pytest.mark.parametrize(("family", "kind"), COMBINATIONS)
def test_frozen_matrices_have_the_requested_dtype_also_in_the_abstract_model(family, kind):
    model, lora = adapted_model(family, kind), LoraConfig(rank=4, alpha=6.0, base_weights=kind)
    shapes = abstract_lora_transformer(arch_of(family), RULES["fsdp"], lora)
    assert jax.tree.structure(model) == jax.tree.structure(shapes)
    expected = {name: (leaf.shape, leaf.dtype) for name, leaf in by_name(shapes).items()}
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in by_name(model).items()} == expected
    outside = jnp.dtype("float32" if kind == "float32" else "bfloat16")
    for name, leaf in by_name(model).items():
        if is_adapter(name) or "norm" in name or ".bias" in name:
            assert leaf.dtype == jnp.float32, name
        elif name.startswith(("tokens", "positions", "head")):
            assert leaf.dtype == outside, name
    kernels = {jax.tree.leaves(part.kernel)[0].dtype for part in projections(model).values()}
    assert kernels == {jnp.dtype({"int8": "int8", "nf4": "uint8"}.get(kind, kind))}


def test_merging_an_int8_model_dequantizes_it():
    model = jax.jit(quantize_int8)(base_of("llama"))
    np.testing.assert_allclose(logits(merge(model)), logits(model), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["float32", "int8", "nf4"])
def test_dequantized_kernels_are_not_saved_for_the_backward_pass(kind):
    """No array has the shape of a dequantized stack of kernels, with and without rematerialization."""
    arch = ArchConfig(**{**FAMILIES["llama"].arch_fields, **SIZES, **REST, **VARIANTS["llama"], "num_layers": 5})
    model = abstract_lora_transformer(arch, RULES["fsdp"], LoraConfig(rank=4, base_weights=kind))
    adapters = {name: leaf for name, leaf in by_name(model).items() if is_adapter(name)}

    def adapter_loss(adapters, frozen, remat):
        return loss(with_leaves(model, {**frozen, **adapters}), jnp.bfloat16, remat)

    for remat in ("none", "full"):
        program = jit(jax.grad(adapter_loss), static_argnums=2).lower(adapters, by_name(model), remat).compile()
        stacks = set(re.findall(r"(?:bf16|f32)\[5,(?:32,80|80,32|32,4,8|4,8,32)\]", program.as_text()))
        assert bool(stacks) == (kind == "float32"), stacks


SHARDED = """
import json
import jax, jax.numpy as jnp, numpy as np
import tests.models.test_lora as tests
from wizardcoder_jax.config import LoraConfig
from wizardcoder_jax.models.lora import merge_adapters, add_adapters_on_mesh
from wizardcoder_jax.core.sharding import MESH_AXES, RULES
from wizardcoder_jax.models.param_shardings import param_shardings
def mesh_of(shape):
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh(shape, MESH_AXES, axis_types=kinds, devices=jax.devices()[: shape[0] * shape[1]])
def run(base, kind, strategy, shape):
    mesh, rules = mesh_of(shape), RULES[strategy]
    base = jax.tree.unflatten(jax.tree.structure(tests.abstract_transformer(base.arch, rules)), jax.tree.leaves(base))
    base = jax.device_put(base, param_shardings(base, mesh, rules))
    model = add_adapters_on_mesh(base, LoraConfig(rank=4, base_weights=kind), jax.random.key(7), mesh)
    names, wanted = tests.by_name(model), tests.by_name(param_shardings(model, mesh, rules))
    missharded = [n for n, leaf in names.items() if not leaf.sharding.is_equivalent_to(wanted[n], leaf.ndim)]
    frozen = {n: np.asarray(leaf) for n, leaf in names.items()}
    model = jax.device_put(tests.trained(model), param_shardings(model, mesh, rules))
    with jax.set_mesh(mesh):
        value = float(jax.jit(lambda model: tests.loss(model, remat="full"))(model))
        grads = tests.adapter_grads(model, remat="full")
        plain = merge_adapters(model, jnp.dtype("float32"))
    grads = {n: np.asarray(g) for n, g in grads.items()}
    return missharded, frozen, value, grads, [np.asarray(x) for x in jax.tree.leaves(plain)]
def same(name, array, expected):
    # the mesh changes the order of the sum in the mean, on which the steps depend
    exact = not name.endswith((".mean.value", ".step.value"))
    return np.array_equal(array, expected) if exact else np.allclose(array, expected, rtol=1e-5, atol=0)
TOKENS = jax.random.randint(jax.random.key(1), (8, 24), 0, 300)
tests.TOKENS, tests.POSITIONS = TOKENS, jnp.broadcast_to(jnp.arange(24), TOKENS.shape)
kind = KIND
base = tests.base_of(FAMILY)
one = run(base, kind, "fsdp", (1, 1))
for strategy in STRATEGIES:
    missharded, frozen, value, grads, plain = run(base, kind, strategy, (2, 4))
    floor = max(np.abs(g).max() for g in grads.values())
    print(json.dumps({
        "strategy": strategy, "kind": kind, "missharded": missharded, "loss": [value, one[2]],
        "differ": [n for n, leaf in frozen.items() if not same(n, leaf, one[1][n])],
        "grads": max(float(np.abs(g - one[3][n]).max() / max(np.abs(g).max(), 1e-2 * floor)) for n, g in grads.items()),
        "plain": max(float(np.abs(x - y).max()) for x, y in zip(plain, one[4], strict=True)),
    }))
"""


@pytest.mark.parametrize(
    ("family", "kind", "strategies"),
    [
        ("qwen2", "nf4", ["fsdp_tensor"]),
        pytest.param("qwen2", "nf4", [*RULES], marks=pytest.mark.slow),
        pytest.param("gpt_bigcode", "int8", [*RULES], marks=pytest.mark.slow),
    ],
)
def test_weights_loss_gradients_and_merge_on_a_mesh_equal_those_on_one_device(family, kind, strategies):
    """The mesh also splits NF4 blocks: 80 hidden units are 5 blocks on 4 devices."""
    program = SHARDED.replace("FAMILY", repr(family)).replace("KIND", repr(kind)).replace("STRATEGIES", repr(strategies))
    done = run_python("-c", program, num_devices=8)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [step["strategy"] for step in found] == strategies
    for step in found:
        assert step["missharded"] == step["differ"] == []  # every weight is sharded by the rules and has the same value
        assert step["loss"][0] == pytest.approx(step["loss"][1], rel=1e-5)
        assert step["grads"] < 1e-5 and step["plain"] < 1e-5, step
