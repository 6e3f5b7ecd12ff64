"""NF4 kernels against the definition in the QLoRA paper, error bounds and memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from wizardcoder_jax.config import LoraConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES
from wizardcoder_jax.models.layers import Projection
from wizardcoder_jax.models.lora import abstract_lora_transformer
from wizardcoder_jax.models.nf4 import LEVELS, Nf4Kernel

# shape, logical axes, the dim of blocks, the dim of groups of magnitudes
KERNELS = {
    "query": ((512, 3, 128), ("embed", "heads", None), 2, 0),
    "out": ((3, 128, 512), ("heads", None, "embed"), 1, 2),
    "up": ((256, 192), ("embed", "mlp"), 1, 0),
    "down": ((192, 768), ("mlp", "embed"), 0, 1),
    "small, with odd sizes": ((36, 80), ("embed", "mlp"), 1, 0),
}
STARCODER = {"vocab_size": 49152, "embed_dim": 6144, "num_layers": 40, "num_heads": 48, "num_kv_heads": 1, "head_dim": 128}
SMOL = {"vocab_size": 49152, "embed_dim": 576, "num_layers": 30, "num_heads": 9, "num_kv_heads": 3, "head_dim": 64}


def kernel_of(name, num_layers=2):
    """Return a kernel with blocks of very different magnitudes."""
    shape = (num_layers, *KERNELS[name][0])
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) * np.exp(rng.standard_normal(shape[:-1]))[..., None]).astype(np.float32)


def quantize(name, kernel):
    return Nf4Kernel(jnp.asarray(kernel), KERNELS[name][1], RULES["fsdp"])


def layer_of(stacked, i):
    return jax.tree.map(lambda leaf: leaf[i], stacked)


def by_definition(kernel, block_dim, group_dim):
    """Return codes [*shape], quantized and exact magnitudes, block by block as in section 3 of the paper."""
    levels = np.asarray(LEVELS)
    rows = np.moveaxis(kernel.astype(np.float64), block_dim, -1)
    size = np.gcd(64, rows.shape[-1])
    codes, magnitudes = np.zeros(rows.shape, int), np.zeros((*rows.shape[:-1], rows.shape[-1] // size))
    for index in np.ndindex(magnitudes.shape):
        block = rows[index[:-1]][index[-1] * size : (index[-1] + 1) * size]
        magnitudes[index] = np.abs(block).max()
        codes[index[:-1]][index[-1] * size : (index[-1] + 1) * size] = np.abs(
            block[:, None] / magnitudes[index] - levels
        ).argmin(axis=1)
    magnitudes, codes = np.moveaxis(magnitudes, -1, block_dim), np.moveaxis(codes, -1, block_dim)
    mean = magnitudes.mean()
    lines = np.moveaxis(magnitudes - mean, group_dim, -1).copy()
    group = np.gcd(256, lines.shape[-1])
    for index in np.ndindex(*lines.shape[:-1], lines.shape[-1] // group):
        part = lines[index[:-1]][index[-1] * group : (index[-1] + 1) * group]
        step = np.abs(part).max() / 127
        part[:] = np.round(part / step) * step
    return codes, np.moveaxis(lines, -1, group_dim) + mean, magnitudes


def test_levels_are_the_normal_quantiles_of_the_definition():
    """Evenly spaced probabilities on each side of 0; the outermost is half a step from 0 or 1, averaged over both sides."""
    end = 1 - (1 / 32 + 1 / 30) / 2
    above, below = norm.ppf(np.linspace(end, 0.5, 9)[:-1]), -norm.ppf(np.linspace(end, 0.5, 8)[:-1])
    expected = np.sort([*above, 0.0, *below]) / above.max()
    assert len(LEVELS) == 16
    np.testing.assert_allclose(LEVELS, expected, atol=1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_dequantized_weights_equal_the_definition(name):
    kernel, (_, _, block_dim, group_dim) = kernel_of(name), KERNELS[name]
    ours = quantize(name, kernel)
    for i in range(2):
        codes, magnitudes, _ = by_definition(kernel[i], block_dim, group_dim)
        repeated = np.repeat(magnitudes, codes.shape[block_dim] // magnitudes.shape[block_dim], axis=block_dim)
        expected = np.asarray(LEVELS)[codes] * repeated
        np.testing.assert_allclose(layer_of(ours, i).dequantize(jnp.float32), expected, atol=1e-5 * np.abs(kernel[i]).max())


@pytest.mark.parametrize("name", KERNELS)
def test_the_error_is_at_most_half_the_widest_gap_plus_half_a_step(name):
    kernel, (_, _, block_dim, group_dim) = kernel_of(name), KERNELS[name]
    ours, widest = quantize(name, kernel), max(np.diff(LEVELS))
    for i in range(2):
        magnitudes = by_definition(kernel[i], block_dim, group_dim)[2]
        step = np.asarray(ours.step[...])[i]
        steps = np.repeat(step, magnitudes.shape[group_dim] // step.shape[group_dim], axis=group_dim)
        bound = magnitudes * widest / 2 + steps / 2
        repeated = np.repeat(bound, kernel[i].shape[block_dim] // bound.shape[block_dim], axis=block_dim)
        error = np.abs(np.asarray(layer_of(ours, i).dequantize(jnp.float32)) - kernel[i])
        assert (error <= 1.0001 * repeated).all()
        assert (error > 0.8 * repeated).any()


def test_a_block_of_zeros_stays_zero():
    kernel = kernel_of("up")
    kernel[:, :, :64] = 0
    dense = np.asarray(layer_of(quantize("up", kernel), 0).dequantize(jnp.float32))
    assert not dense[:, :64].any() and dense[:, 64:].any(axis=1).all()
    assert not np.asarray(layer_of(quantize("up", 0 * kernel), 0).dequantize(jnp.float32)).any()


def test_a_bfloat16_kernel_is_the_rounded_float32_kernel():
    ours = layer_of(quantize("out", kernel_of("out")), 0)
    np.testing.assert_array_equal(ours.dequantize(jnp.bfloat16), ours.dequantize(jnp.float32).astype(jnp.bfloat16))


@pytest.mark.parametrize(("sizes", "mlp_dim", "limit"), [(STARCODER, 24576, 4.128), (SMOL, 1536, 4.135)])
def test_a_weight_takes_little_more_than_four_bits(sizes, mlp_dim, limit):
    more = {"max_positions": 2048, "norm_eps": 1e-5, "tie_embeddings": True, "mlp_dim": mlp_dim}
    arch = ArchConfig(**FAMILIES["llama"].arch_fields, **sizes, **more)
    blocks = abstract_lora_transformer(arch, RULES["fsdp"], LoraConfig(rank=8, base_weights="nf4")).blocks
    kernels = {"gate": blocks.mlp.gate, "up": blocks.mlp.up, "down": blocks.mlp.down, **vars(blocks.attention)}
    stored = {name: module.kernel for name, module in kernels.items() if isinstance(module, Projection)}
    d, n, k, h = (sizes[name] for name in ("embed_dim", "num_heads", "num_kv_heads", "head_dim"))
    numbers = sizes["num_layers"] * d * (2 * n * h + 2 * k * h + 3 * mlp_dim)
    assert len(stored) == 7
    num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(stored))
    assert 4 + 8 / 64 < 8 * num_bytes / numbers < limit


def test_an_odd_dim_is_rejected():
    with pytest.raises(InputError, match=r"pairs.*\(8, 5\).*base_weights"):
        Nf4Kernel(jnp.ones((2, 8, 5)), ("embed", "mlp"), RULES["fsdp"])
