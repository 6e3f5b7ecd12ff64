"""Token selection draws from the same distribution as transformers, each row by its own parameters and random numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from wizardcoder_jax.inference.engine_programs import uniform
from wizardcoder_jax.inference.request import BatchSamplingParams, SamplingParams, SamplingSteps
from wizardcoder_jax.inference.token_selection import select_tokens

NUM_DRAWS = 20_000
# JAX compiles each operation of a function by itself unless the function is jitted, which is much slower here.
select = jax.jit(select_tokens, static_argnums=(2, 4))


def draw_tokens(logits, num_draws, params, seen=None):
    """Draw tokens from one row of logits, each with its own key."""
    rows = jnp.repeat(logits, num_draws, 0)
    keys = jnp.stack([jnp.full(num_draws, 9), jnp.arange(num_draws)], -1).astype(jnp.uint32)
    batch = jax.tree.map(lambda value: jnp.repeat(value, num_draws), BatchSamplingParams.from_params(params, logits.shape[1]))
    seen = jnp.zeros(rows.shape, bool) if seen is None else jnp.repeat(seen, num_draws, 0)
    draw = functools.partial(uniform, keys, jnp.zeros(num_draws, jnp.int32))
    return np.asarray(select(rows, seen, draw, batch, SamplingSteps.required_by([params])))


def distribution_of_transformers(logits, params, seen_ids):
    """Return the distribution that transformers samples from."""
    steps = transformers.LogitsProcessorList([transformers.RepetitionPenaltyLogitsProcessor(params.repetition_penalty)])
    steps.append(transformers.TemperatureLogitsWarper(params.temperature))
    if params.top_k is not None:
        steps.append(transformers.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(transformers.TopPLogitsWarper(params.top_p))
    if params.min_p:
        steps.append(transformers.MinPLogitsWarper(params.min_p))
    ids = torch.tensor([seen_ids or [0]])
    if not seen_ids:
        steps.pop(0)
    return torch.softmax(steps(ids, torch.tensor(np.array(logits)))[0].double(), -1).numpy()


PARAMS = {
    "all": SamplingParams(temperature=1.0),
    "high temperature": SamplingParams(temperature=1.7),
    "nucleus": SamplingParams(temperature=0.8, top_p=0.9),
    "small nucleus": SamplingParams(temperature=1.0, top_p=0.3),
    "most likely token only": SamplingParams(temperature=1.0, top_p=0.01),
    "top-k": SamplingParams(temperature=1.0, top_k=7),
    "top-k then nucleus": SamplingParams(temperature=1.0, top_k=12, top_p=0.7),
    "min-p": SamplingParams(temperature=1.2, min_p=0.2),
    "penalty": SamplingParams(temperature=1.0, repetition_penalty=1.8),
    "everything": SamplingParams(temperature=0.9, top_k=30, top_p=0.95, min_p=0.05, repetition_penalty=1.3),
}


@pytest.mark.parametrize("case", PARAMS)
@pytest.mark.parametrize("vocab_size", [60, pytest.param(700, marks=pytest.mark.slow)])
def test_tokens_are_drawn_from_the_same_distribution_as_in_transformers(case, vocab_size):
    check_distribution(PARAMS[case], vocab_size)


@pytest.mark.parametrize("case", ["nucleus", "everything"])
def test_tokens_of_a_vocabulary_of_several_blocks_are_drawn_from_the_same_distribution(case):
    check_distribution(PARAMS[case], 700)


def check_distribution(params, vocab_size):
    logits = 2 * jax.random.normal(jax.random.key(vocab_size), (1, vocab_size))
    seen_ids = list(range(0, vocab_size, 3)) if params.repetition_penalty != 1 else []
    seen = jnp.zeros((1, vocab_size), bool).at[0, jnp.array(seen_ids, int)].set(True)
    expected = distribution_of_transformers(logits, params, seen_ids)
    counts = np.bincount(draw_tokens(logits, NUM_DRAWS, params, seen), minlength=vocab_size)
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    deviation = np.sqrt(NUM_DRAWS * expected[kept] * (1 - expected[kept])) + 1
    assert (np.abs(counts[kept] - NUM_DRAWS * expected[kept]) < 5 * deviation).all()


def test_random_numbers_are_uniform_and_differ_between_keys_positions_and_attempts():
    keys = jnp.stack(jnp.meshgrid(jnp.arange(50), jnp.arange(40), indexing="ij"), -1).reshape(-1, 2).astype(jnp.uint32)
    draws = np.stack([uniform(keys, jnp.full(len(keys), p), jnp.int32(n)) for p, n in ((5, 0), (5, 1), (6, 0), (700, 0))])
    assert len(np.unique(draws)) > 0.999 * draws.size
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    chi_square = ((counts - draws.size / 20) ** 2 / (draws.size / 20)).sum()
    assert chi_square < 19 + 4 * np.sqrt(2 * 19)  # four standard deviations above its mean


@pytest.mark.parametrize("params", [SamplingParams(temperature=1.0), SamplingParams(temperature=1.0, top_p=0.95)])
def test_extreme_random_numbers_select_a_possible_token(params):
    logits = jnp.array([[0.0, 1.0, -jnp.inf, 2.0, -jnp.inf]])
    largest = jnp.nextafter(jnp.float32(1), jnp.float32(0))
    steps = SamplingSteps.required_by([params])
    for number, possible in ((jnp.float32(0), {0, 1}), (largest, {3})):
        batch, draw = BatchSamplingParams.from_params(params, 5), lambda _, number=number: number[None]
        assert int(select(logits, jnp.zeros((1, 5), bool), draw, batch, steps)[0]) in possible


def test_the_rows_of_a_batch_each_use_their_own_parameters():
    logits = 2 * jax.random.normal(jax.random.key(5), (1, 300))
    params = [SamplingParams(), *PARAMS.values()]
    alone = [draw_tokens(logits, 1, row)[0] for row in params]
    rows = [BatchSamplingParams.from_params(row, 300) for row in params]
    batch = BatchSamplingParams(*map(jnp.concatenate, zip(*rows, strict=True)))
    n = len(params)
    draw = functools.partial(uniform, jnp.tile(jnp.array([[9, 0]], jnp.uint32), (n, 1)), jnp.zeros(n, jnp.int32))
    seen = jnp.zeros((n, 300), bool)
    together = select(jnp.repeat(logits, n, 0), seen, draw, batch, SamplingSteps.required_by(params))
    assert together.tolist() == alone
    assert alone[0] == int(logits.argmax())
