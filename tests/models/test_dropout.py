"""Dropout and NEFTune noise: rates, independence of random bits, and the formula of a block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.splash_cases import architecture, parameters
from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.models.dropout import ATTENTION, ATTENTION_OUT, MLP_OUT, ActivationNoise, fold_in_rows
from wizardcoder_jax.models.reference_attention import packed_mask
from wizardcoder_jax.models.transformer import abstract_transformer

SEEDS = jnp.arange(4, dtype=jnp.uint32)
RATE = 0.25


def test_dropout_drops_the_given_share_and_keeps_the_expectation():
    dropped = np.asarray(ActivationNoise(seeds=SEEDS, dropout=RATE).layer_dropout(1)(jnp.ones((4, 200, 100)), MLP_OUT))
    assert set(np.unique(dropped).tolist()) == {0.0, float(np.float32(1 / (1 - RATE)))}
    assert (dropped == 0).mean() == pytest.approx(RATE, abs=4 * np.sqrt(RATE * (1 - RATE) / dropped.size))
    assert dropped.mean() == pytest.approx(1, abs=0.01)


def test_masks_differ_by_sequence_layer_and_site_and_depend_only_on_the_seed_of_the_sequence():
    noise, x = ActivationNoise(seeds=SEEDS, dropout=RATE), jnp.ones((4, 30, 10))
    masks = np.concatenate([noise.layer_dropout(layer)(x, site) for layer in (1, 2) for site in (ATTENTION_OUT, MLP_OUT)])
    assert len({mask.tobytes() for mask in masks}) == 16
    alone = ActivationNoise(seeds=SEEDS[2:3], dropout=RATE).layer_dropout(1)(x[:1], ATTENTION_OUT)
    np.testing.assert_array_equal(alone[0], masks[2])


def test_no_random_numbers_are_drawn_if_the_noise_is_off():
    x = jnp.ones((4, 6, 8))
    assert ActivationNoise(seeds=SEEDS, neftune_alpha=5.0).layer_dropout(1) is None
    assert ActivationNoise(seeds=SEEDS, dropout=RATE).add_to_embeddings(x, jnp.ones((4, 6), jnp.int32)) is x


def test_embedding_noise_is_uniform_within_the_bound_of_each_example():
    """NEFTune's bound alpha / sqrt(L D), with L of each packed example."""
    lengths, dim, alpha = (50, 150, 56), 64, 5.0
    segment_ids = jnp.asarray(np.repeat([[1, 2, 0]], 4, axis=0).repeat(lengths, axis=1))
    noise = np.asarray(
        ActivationNoise(seeds=SEEDS, neftune_alpha=alpha).add_to_embeddings(jnp.zeros((4, 256, dim)), segment_ids)
    )
    for segment, length in ((1, 50), (2, 150)):
        here, bound = noise[np.asarray(segment_ids) == segment], alpha / np.sqrt(length * dim)
        assert 0.99 * bound < np.abs(here).max() <= bound
        assert here.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)  # of a uniform variable
        assert abs(here.mean()) < 0.05 * bound


def test_a_block_with_dropout_equals_the_formula_with_the_same_masks():
    """numpy computes transformers' GPTBigCodeBlock in train mode, with masks drawn in the test."""
    arch = architecture("multi-query, learned")
    model = jax.tree.unflatten(jax.tree.structure(abstract_transformer(arch, RULES["fsdp"])), parameters(arch))
    block, length, heads = model.unstack_layers().blocks[0], 20, arch.num_heads
    x = jax.random.normal(jax.random.key(0), (2, length, arch.embed_dim))
    positions, mask = jnp.broadcast_to(jnp.arange(length), (2, length)), packed_mask(jnp.ones((2, length), jnp.int32), None)
    dropout = ActivationNoise(seeds=SEEDS[:2], dropout=RATE).layer_dropout(1)
    found = jax.jit(lambda block: block(x, positions, mask, None, dropout)[0])(block)

    draw = lambda keys, shape: np.stack([np.asarray(jax.random.bernoulli(key, 1 - RATE, shape)) for key in keys])  # noqa: E731
    kept = np.stack([draw(fold_in_rows(dropout.keys_at(ATTENTION), head), (length, length)) for head in range(heads)], axis=1)
    normed = block.attention_norm(x)
    queries, keys, values = (
        np.asarray(part(normed)) for part in (block.attention.query, block.attention.key, block.attention.value)
    )
    scores = np.einsum("BTNH,BSKH->BNTS", queries, keys) / np.sqrt(arch.head_dim)
    scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
    probabilities = np.exp(scores - scores.max(-1, keepdims=True))
    probabilities = probabilities / probabilities.sum(-1, keepdims=True) * kept / (1 - RATE)
    attended = np.asarray(block.attention.out(jnp.asarray(np.einsum("BNTS,BSKH->BTNH", probabilities, values))))
    y = np.asarray(x) + attended * draw(dropout.keys_at(ATTENTION_OUT), x.shape[1:]) / (1 - RATE)
    down = np.asarray(block.mlp(block.mlp_norm(jnp.asarray(y))))
    expected = y + down * draw(dropout.keys_at(MLP_OUT), x.shape[1:]) / (1 - RATE)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
