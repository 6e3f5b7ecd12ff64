"""Logits, caches and gradients of the Transformer, against transformers for every family."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.helpers import tiny_models
from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.models.arch import VOCAB_MULTIPLE, ArchConfig
from wizardcoder_jax.models.transformer import Transformer

pytestmark = pytest.mark.full_optimization

WINDOW = 7
LINEAR_ROPE = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}
CASES = {
    "gpt_bigcode multi-query, tanh gelu": lambda: tiny_models.gpt_bigcode(activation_function="gelu_pytorch_tanh"),
    "gpt_bigcode multi-query, exact gelu": lambda: tiny_models.gpt_bigcode(activation_function="gelu"),
    "gpt_bigcode multi-head": lambda: tiny_models.gpt_bigcode(multi_query=False),
    "gpt_bigcode untied": lambda: tiny_models.gpt_bigcode(tie_word_embeddings=False, vocab_size=393),
    "llama grouped-query, untied": lambda: tiny_models.llama(),
    "llama multi-query, tied, odd vocabulary": lambda: tiny_models.llama(
        num_key_value_heads=1, tie_word_embeddings=True, vocab_size=393
    ),
    "llama multi-head": lambda: tiny_models.llama(num_key_value_heads=4),
    "llama linear rope scaling": lambda: tiny_models.llama(rope_parameters=LINEAR_ROPE),
    "llama wide heads": lambda: tiny_models.llama(head_dim=12, rms_norm_eps=1e-3),
    "starcoder2 sliding window, tied": lambda: tiny_models.starcoder2(sliding_window=WINDOW),
    "starcoder2 untied, multi-query": lambda: tiny_models.starcoder2(tie_word_embeddings=False, num_key_value_heads=1),
    "starcoder2 without biases, multi-head, exact gelu": lambda: tiny_models.starcoder2(
        use_bias=False, num_key_value_heads=4, hidden_act="gelu"
    ),
    "qwen2 grouped-query, tied": lambda: tiny_models.qwen2(tie_word_embeddings=True, rope_parameters=LINEAR_ROPE),
    "qwen2 sliding window in every layer, untied": lambda: tiny_models.qwen2(
        use_sliding_window=True, sliding_window=WINDOW, max_window_layers=0
    ),
}
ONE_OF_EACH_FAMILY = [
    "gpt_bigcode multi-query, tanh gelu",
    "starcoder2 sliding window, tied",
    "llama multi-query, tied, odd vocabulary",
    "qwen2 grouped-query, tied",
]
BATCH, LENGTH = 3, 24
NUM_SLOTS = LENGTH + 7
PROMPT = 11
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles faster


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """The same weights in transformers' model and in ours."""
    theirs = CASES[request.param]()
    return theirs, tiny_models.ours(theirs, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=ONE_OF_EACH_FAMILY)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family, tmp_path_factory):
    return tiny_models.ours(CASES[family](), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def unstacked(model):
    return model.unstack_layers()


def random_tokens(model, shape=(BATCH, LENGTH)):
    return jax.random.randint(jax.random.key(1), shape, 0, model.arch.vocab_size)


def apply(model, tokens, positions, segment_ids):
    return model(tokens, positions, segment_ids, dtype=jnp.float32)


hidden_states = jit(apply)


@jit
def extend(model, tokens, positions, cache):
    return model.extend(tokens, positions, cache)


def forward(model, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return hidden_states(model, tokens, positions, jnp.ones_like(tokens))


def real_logits(model, tokens):
    return np.asarray(model.logits(forward(model, tokens)))[..., : model.arch.vocab_size]


def test_logits_equal_transformers(pair):
    theirs, ours = pair
    tokens = random_tokens(ours)
    with torch.no_grad():
        expected = theirs(torch.tensor(np.asarray(tokens))).logits.numpy()
    assert np.abs(expected).max() > 0.5  # not a comparison of zeros
    np.testing.assert_allclose(real_logits(ours, tokens), expected, rtol=0, atol=1e-4)


@pytest.mark.slow  # for one model of each family, test_scanned_blocks_equal_unrolled_ones compares the two
def test_logits_of_unstacked_blocks_equal_those_of_stacked_ones(pair):
    _, ours = pair
    tokens = random_tokens(ours)
    expected = real_logits(ours, tokens)
    np.testing.assert_allclose(real_logits(ours.unstack_layers(), tokens), expected, rtol=0, atol=1e-4)


def test_logits_at_explicit_positions_equal_transformers(pair):
    """Rows that start at position 17, and rows of two segments that start at positions 0 and 40."""
    theirs, ours = pair
    tokens = random_tokens(ours)
    late = np.arange(17, 17 + LENGTH)[None].repeat(BATCH, axis=0)
    first = 9
    packed = np.concatenate([np.arange(first), 40 + np.arange(LENGTH - first)])[None].repeat(BATCH, axis=0)
    for positions, segment_ids in ((late, np.ones_like(late)), (packed, 1 + (packed >= 40))):
        ids = {"input_ids": torch.tensor(np.asarray(tokens)), "position_ids": torch.tensor(positions)}
        with torch.no_grad():
            expected = theirs(**ids, use_cache=False).logits.numpy()
        logits = ours.logits(hidden_states(ours, tokens, jnp.asarray(positions), jnp.asarray(segment_ids)))
        np.testing.assert_allclose(logits[..., : ours.arch.vocab_size], expected, rtol=0, atol=1e-4)


def test_logits_of_a_left_padded_batch_equal_transformers(pair):
    theirs, ours = pair
    tokens = random_tokens(ours)
    real = np.arange(LENGTH) >= np.array([0, 5, 13])[:, None]
    positions = np.maximum(real.cumsum(axis=1) - 1, 0)
    ids = {"input_ids": torch.tensor(np.asarray(tokens)), "position_ids": torch.tensor(positions)}
    with torch.no_grad():
        expected = theirs(**ids, attention_mask=torch.tensor(real).long()).logits.numpy()
    logits = np.asarray(ours.logits(hidden_states(ours, tokens, jnp.asarray(positions), jnp.asarray(real, jnp.int32))))
    np.testing.assert_allclose(logits[real, : ours.arch.vocab_size], expected[real], rtol=0, atol=1e-4)
    assert np.isfinite(logits[..., : ours.arch.vocab_size]).all()


def test_one_sequence_of_the_full_context_length_equals_transformers(family, model):
    """Rotary angles and learned positions far from 0, and a sliding window over the whole row."""
    tokens = random_tokens(model, (1, model.arch.max_positions))
    with torch.no_grad():
        expected = CASES[family]()(torch.tensor(np.asarray(tokens))).logits.numpy()
    np.testing.assert_allclose(real_logits(model, tokens), expected, rtol=0, atol=1e-4)


def test_scanned_blocks_equal_unrolled_ones(model, unstacked):
    tokens = random_tokens(model)
    np.testing.assert_allclose(forward(model, tokens), forward(unstacked, tokens), rtol=0, atol=1e-5)


def test_unstacking_can_free_the_stacked_arrays(model):
    stacked, tokens = jax.tree.map(jnp.copy, model), random_tokens(model)
    unstacked = stacked.unstack_layers(free_stacked=True)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(stacked.blocks))
    np.testing.assert_allclose(forward(unstacked, tokens), forward(model, tokens), rtol=0, atol=1e-5)


def test_gradients_of_unrolled_rematerialized_blocks_equal_those_of_scanned_ones(model):
    tokens = random_tokens(model)
    positions = jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape)

    def loss(model, unroll, remat):
        blocks = model.unstack_layers() if unroll else model
        hidden = blocks(tokens, positions, jnp.ones_like(tokens), dtype=jnp.float32, remat=remat)
        return jnp.square(hidden).mean()

    gradient = jit(jax.grad(loss), static_argnums=(1, 2))
    grads, others = gradient(model, False, "none"), gradient(model, True, "full")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, others)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))  # every parameter has an effect


@pytest.mark.parametrize("pieces", [(1,) * LENGTH, (PROMPT, PROMPT, 1, 1)])
def test_a_cache_extended_in_pieces_equals_the_full_forward_pass(model, unstacked, pieces):
    tokens = random_tokens(model)
    cache, outputs, start = unstacked.empty_cache(BATCH, NUM_SLOTS, jnp.float32), [], 0
    for length in pieces:
        positions = jnp.broadcast_to(jnp.arange(start, start + length), (BATCH, length))
        hidden, cache = extend(unstacked, tokens[:, start : start + length], positions, cache)
        outputs.append(hidden)
        start += length
    np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), forward(model, tokens), rtol=0, atol=1e-4)


def test_sequences_of_different_lengths_decode_in_one_batch(model, unstacked):
    tokens, cache = random_tokens(model), unstacked.empty_cache(BATCH, NUM_SLOTS, jnp.float32)
    lengths = np.array([3, PROMPT, 7])
    # Shorter prompts are padded with junk, which must be overwritten before any token attends to it.
    prompt = jnp.where(jnp.arange(PROMPT) < lengths[:, None], tokens[:, :PROMPT], 7)
    _, cache = extend(unstacked, prompt, jnp.broadcast_to(jnp.arange(PROMPT), (BATCH, PROMPT)), cache)
    expected = forward(model, tokens)
    for step in range(LENGTH - PROMPT):
        positions = lengths + step
        next_tokens = tokens[jnp.arange(BATCH), positions][:, None]
        hidden, cache = extend(unstacked, next_tokens, positions[:, None], cache)
        np.testing.assert_allclose(hidden[:, 0], expected[np.arange(BATCH), positions], rtol=0, atol=1e-4)


def test_tokens_after_the_last_slot_are_not_written(model, unstacked):
    tokens = random_tokens(model, (1, 8))
    _, expected = extend(unstacked, tokens[:, :6], jnp.arange(6)[None], unstacked.empty_cache(1, 6, jnp.float32))
    _, overrun = extend(unstacked, tokens, jnp.arange(8)[None], unstacked.empty_cache(1, 6, jnp.float32))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), expected, overrun)


def test_a_position_depends_on_itself_and_earlier_positions_within_the_window_only(model):
    """By gradients with respect to the embeddings of all positions."""
    tokens = jnp.arange(10, 10 + LENGTH)[None]  # all different, so that each position has its own row of the embedding
    direction = jax.random.normal(jax.random.key(2), (model.arch.embed_dim,))
    positions = jnp.arange(LENGTH)[None]
    output = lambda model: apply(model, tokens, positions, jnp.ones_like(tokens))[0] @ direction  # noqa: E731
    jacobian = jit(jax.jacrev(output))(model)
    # [position, position that it may depend on]
    influence = np.abs(np.asarray(jacobian.tokens[...])[:, np.asarray(tokens[0])]).max(-1)
    reach = LENGTH if model.arch.sliding_window is None else model.arch.num_layers * (model.arch.sliding_window - 1)
    visible = np.tri(LENGTH, dtype=bool) & ~np.tri(LENGTH, k=-reach - 1, dtype=bool)
    assert (influence[~visible] == 0).all()
    assert (influence[visible] > 0).all()


def test_packed_segments_equal_separate_sequences(model):
    lengths, padding = np.array([7, 12, 1]), 4
    row = random_tokens(model, (1, LENGTH))
    positions = np.concatenate([np.arange(n) for n in (*lengths, padding)])[None]
    segment_ids = np.repeat([1, 2, 3, 0], [*lengths, padding])[None]
    packed = np.asarray(hidden_states(model, row, jnp.asarray(positions), jnp.asarray(segment_ids)))
    for end, n in zip(np.cumsum(lengths), lengths, strict=True):
        alone = jnp.roll(row, n - end, axis=1)  # the example first; later tokens have no effect
        np.testing.assert_allclose(packed[:, end - n : end], forward(model, alone)[:, :n], rtol=0, atol=1e-5)
    assert np.isfinite(packed).all()


def test_padding_of_the_vocabulary_gets_no_probability():
    arch = tiny_arch(vocab_size=393)
    model = jit(lambda key: Transformer(arch, RULES["fsdp"], key))(jax.random.key(0))
    logits = model.logits(jnp.ones((2, arch.embed_dim)))
    assert logits.shape == (2, 512)
    assert arch.padded_vocab_size == 512
    assert np.isfinite(logits[:, :393]).all()
    assert (np.asarray(logits[:, 393:]) == -np.inf).all()


def test_bfloat16_activations_give_float32_logits_near_those_of_float32(model):
    tokens = random_tokens(model)
    positions = jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape)
    hidden = jit(lambda model: model(tokens, positions, jnp.ones_like(tokens), dtype=jnp.bfloat16))(model)
    assert hidden.dtype == jnp.bfloat16
    logits = model.logits(hidden)[..., : model.arch.vocab_size]
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, real_logits(model, tokens), rtol=0, atol=0.3)


def tiny_arch(**changes):
    sizes = {"vocab_size": 384, "embed_dim": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
    kinds = {"family": "llama", "position": "rope", "norm": "rms", "norm_eps": 1e-5, "mlp": "swiglu", "bias": "none"}
    return ArchConfig(**{**sizes, **kinds, "mlp_dim": 80, "max_positions": 64, "tie_embeddings": True, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_heads": 3}, "num_heads 4 .* num_kv_heads 3"),
        ({"head_dim": 7}, "even head_dim, got 7"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"sliding_window": 0}, "sliding_window must be at least 1 or None, got 0"),
    ],
)
def test_an_invalid_architecture_is_rejected_with_the_reason(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_arch(**changes)


def test_all_devices_of_a_16x16_pod_divide_the_padded_vocabulary():
    assert tiny_arch(vocab_size=49153).padded_vocab_size == 49408
    assert tiny_arch(vocab_size=49152).padded_vocab_size == 49152
    assert VOCAB_MULTIPLE % (16 * 16) == 0
