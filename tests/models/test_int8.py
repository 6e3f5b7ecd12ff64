"""Int8 kernels: rounding errors, logits, and sampling with them."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import tiny_models
from tests.helpers.processes import run_python
from wizardcoder_jax import sample
from wizardcoder_jax.models.int8 import quantize_int8
from wizardcoder_jax.models.layers import Projection

FAMILIES = {
    "gpt_bigcode multi-query": lambda: tiny_models.gpt_bigcode(vocab_size=393),
    "starcoder2 grouped-query with biases": lambda: tiny_models.starcoder2(use_bias=True),
    "llama multi-head, untied": lambda: tiny_models.llama(num_key_value_heads=4),
    "qwen2 with biases of q, k and v": lambda: tiny_models.qwen2(),
}
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles faster
QUANTIZE = jit(quantize_int8)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    return tiny_models.ours(FAMILIES[request.param](), tmp_path_factory.mktemp("model"))


def projections(model):
    """Return (name, Projection) for every projection in the blocks."""
    found = []
    for part in ("attention", "mlp"):
        for name, value in vars(getattr(model.blocks, part)).items():
            if isinstance(value, Projection):
                found.append((f"{part}.{name}", value))
    return found


@jit
def logits(model, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    found = model.logits(model(tokens, positions, jnp.ones_like(tokens), dtype=jnp.float32))
    return found[..., : model.arch.vocab_size]


def random_tokens(model):
    return jax.random.randint(jax.random.key(1), (4, 48), 0, model.arch.vocab_size)


def dequantize(model):
    """Return the model with floating-point kernels: int8 times scale."""
    model = jax.tree.map(lambda leaf: leaf, model)
    for _, projection in projections(model):
        axes = projection.kernel.axes
        inputs = tuple(range(1, 1 + projection.num_in))
        kernel = projection.kernel[...].astype(jnp.float32) * jnp.expand_dims(projection.scale[...], inputs)
        projection.kernel = type(projection.kernel)(kernel, axes=axes)
        projection.scale = None
    return model


def test_kernels_are_within_half_a_scale_of_the_original(model):
    quantized = dict(projections(QUANTIZE(model)))
    assert len(quantized) == (7 if model.arch.mlp == "swiglu" else 6)
    for name, projection in projections(model):
        kernel, ours = np.asarray(projection.kernel[...]), quantized[name]
        inputs = tuple(range(1, 1 + projection.num_in))
        assert (ours.kernel.dtype, ours.kernel.shape, ours.scale.dtype) == (jnp.int8, kernel.shape, jnp.float32)
        scale = np.asarray(ours.scale[...])
        np.testing.assert_allclose(scale, np.abs(kernel).max(inputs) / 127, rtol=1e-6)
        error = np.abs(np.asarray(ours.kernel[...]) * np.expand_dims(scale, inputs) - kernel)
        assert (error <= np.expand_dims(scale, inputs) * 0.5001).all()
        assert error.max() > 0
        assert np.abs(np.asarray(ours.kernel[...])).max(inputs).min() == 127  # every channel uses the whole range


def test_everything_else_is_unchanged(model):
    ours, theirs = QUANTIZE(model), dict(projections(model))
    np.testing.assert_array_equal(ours.tokens[...], model.tokens[...])
    np.testing.assert_array_equal(ours.head_table, model.head_table)
    for name, projection in projections(ours):
        assert (projection.bias is None) == (theirs[name].bias is None)
        if projection.bias is not None:
            np.testing.assert_array_equal(projection.bias[...], theirs[name].bias[...])
    kinds = {leaf.dtype for leaf in jax.tree.leaves(model)}
    assert kinds == {jnp.dtype(jnp.float32)}  # the argument is not modified


def test_logits_equal_those_of_the_dequantized_kernels(model):
    ours = QUANTIZE(model)
    np.testing.assert_allclose(logits(ours, random_tokens(model)), logits(dequantize(ours), random_tokens(model)), atol=2e-5)


def test_logits_and_greedy_tokens_stay_close(model):
    exact, ours = (np.asarray(logits(m, random_tokens(model)), np.float64) for m in (model, QUANTIZE(model)))
    norms = np.linalg.norm(exact, axis=-1) * np.linalg.norm(ours, axis=-1)
    cosine = (exact * ours).sum(-1) / norms
    assert 0.99 < cosine.min() < 1 - 1e-9
    assert (exact.argmax(-1) == ours.argmax(-1)).mean() > 0.9


def test_unstacking_before_and_after_quantization_are_equal(model):
    tokens = random_tokens(model)
    expected = logits(QUANTIZE(model), tokens)
    before = jit(lambda model: quantize_int8(model.unstack_layers()))(model)
    after = jit(lambda model: quantize_int8(model).unstack_layers())(model)
    np.testing.assert_allclose(logits(after, tokens), expected, atol=2e-5)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(before), jax.tree.leaves(after))


def test_a_channel_of_zeros_stays_zero(model):
    name, projection = projections(model)[0]
    kernel = projection.kernel[...].at[..., 0].set(0.0)
    changed = jax.tree.map(lambda leaf: leaf, model)
    dict(projections(changed))[name].kernel = type(projection.kernel)(kernel, axes=projection.kernel.axes)
    ours = dict(projections(QUANTIZE(changed)))[name]
    assert not np.asarray(ours.kernel[..., 0]).any()
    assert np.isfinite(np.asarray(logits(QUANTIZE(changed), random_tokens(model)))).all()


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES
from wizardcoder_jax.models.int8 import quantize_int8
from wizardcoder_jax.models.transformer import Transformer
from wizardcoder_jax.core.sharding import RULES, make_mesh
sizes = dict(vocab_size=300, embed_dim=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=64, max_positions=64)
arch = ArchConfig(**FAMILIES["llama"].arch_fields, **sizes, norm_eps=1e-5, tie_embeddings=True)
tokens = jax.random.randint(jax.random.key(1), (4, 16), 0, 300)
positions = jnp.broadcast_to(jnp.arange(16), tokens.shape)
def logits(model):
    return model.logits(model(tokens, positions, jnp.ones_like(tokens), dtype=jnp.float32))[..., :300]
found = {}
for mesh in ("1x1", "2x2"):
    with jax.set_mesh(make_mesh(mesh)):
        model = jax.jit(lambda: quantize_int8(Transformer(arch, RULES["fsdp_tensor"], jax.random.key(0))))()
        found[mesh] = np.asarray(jax.jit(logits)(model)), np.asarray(model.blocks.mlp.up.kernel[...])
up, out = model.blocks.mlp.up, model.blocks.attention.out
print(*(tuple(param[...].sharding.spec) for param in (up.kernel, up.scale, out.scale)))
np.testing.assert_array_equal(found["1x1"][1], found["2x2"][1])
np.testing.assert_allclose(found["1x1"][0], found["2x2"][0], atol=1e-5)
"""


def test_an_int8_model_on_a_mesh_equals_that_on_one_device():
    done = run_python("-c", SHARDED, num_devices=4)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(None, 'data', 'model') (None, 'model') (None, 'data')\n"


def test_sample_can_quantize_and_records_it(tmp_path):
    tiny_models.save_folder(tiny_models.llama(), tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"instruction": f"Add {i}."}) + "\n" for i in range(3)))
    named = {name: tmp_path / file for name, file in (("model", "model"), ("prompts", "prompts.jsonl"), ("output", "it.jsonl"))}
    flags = [text for name, path in named.items() for text in (f"--{name}", str(path))]
    sample.main([*flags, "--cache-dir", str(tmp_path), "--max-length", "100", "--batch-size", "2", "--int8-weights"])
    rows = [json.loads(line) for line in (tmp_path / "it.jsonl").read_text().splitlines()]
    assert [row["task_id"] for row in rows] == ["0", "1", "2"]
    assert all(row["num_tokens"] > 0 for row in rows)
    assert json.loads((tmp_path / "it.meta.json").read_text())["int8_weights"] is True
