"""Selection of the next token: greedy, or sampled after repetition penalty, temperature, top-k, top-p and min-p.

The token of a row depends only on the row's own logits, parameters and uniform random numbers. Sampling is fast because it
neither sorts the vocabulary nor draws a random number for every vocabulary entry.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wizardcoder_jax.inference.request import BatchSamplingParams, SamplingSteps

BLOCK = 256  # number of vocabulary entries per block; `_draw` first draws a block, then a token in it


def select_tokens(
    logits: jax.Array,
    seen: jax.Array,
    draw: Callable[[jax.Array], jax.Array],
    params: BatchSamplingParams,
    steps: SamplingSteps,
) -> jax.Array:
    """Return the next token of every sequence.

    Args:
        logits: float32 [B, V].
        seen: bool [B, V], whether a token has occurred; only read if there is a repetition penalty.
        draw: function from the number of an attempt to uniform random numbers [B] in [0, 1).
        params: parameters of each row.
        steps: steps to include; other steps are omitted from the program.

    Returns:
        Token ids, int32 [B].
    """
    if steps.repetition_penalty:
        penalty = params.repetition_penalty[:, None]
        logits = jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)
    greedy = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if not steps.sampled:
        return greedy
    is_sampled = params.temperature > 0
    temperature = jnp.where(is_sampled, params.temperature, 1.0)[:, None]
    weights = jnp.exp((logits - logits.max(-1, keepdims=True)) / temperature)  # unnormalized; the largest is 1
    if steps.top_k:
        weights = jnp.where(weights >= _kth_largest(weights, params.top_k), weights, 0.0)
    allowed = jnp.where(weights >= params.min_p[:, None], weights, 0.0) if steps.min_p else weights
    sampled = _draw_from_nucleus(weights, allowed, draw, params.top_p) if steps.top_p else _draw(allowed, draw(jnp.int32(0)))
    return jnp.where(is_sampled, sampled, greedy)


def _draw_from_nucleus(
    weights: jax.Array, allowed: jax.Array, draw: Callable[[jax.Array], jax.Array], top_p: jax.Array
) -> jax.Array:
    """Draw one token per row, [B], that has a positive weight in `allowed` [B, V] and is in the nucleus of `weights` [B, V].

    A token is in the nucleus if all tokens that are more likely have less than `top_p` of the probability together. Rejection
    sampling makes it unnecessary to compute the nucleus: draw from all tokens, accept the token if it is in the nucleus, and
    otherwise draw again from the more likely tokens only. Accepted tokens have the distribution of draws from the nucleus. With
    top_p 0.95, 19 of 20 first draws are accepted.
    """
    # The threshold is above 0, so that the most likely token is always accepted.
    threshold = jnp.maximum(top_p * weights.sum(-1), jnp.finfo(jnp.float32).tiny)

    def attempt(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        number, floor, tokens, is_done = state
        drawn = _draw(jnp.where(allowed > floor[:, None], allowed, 0.0), draw(number))
        weight = jnp.take_along_axis(weights, drawn[:, None], axis=1)
        is_inside = jnp.where(weights > weight, weights, 0.0).sum(-1) < threshold
        tokens = jnp.where(is_done, tokens, drawn)
        return number + 1, jnp.where(is_done | is_inside, floor, weight[:, 0]), tokens, is_done | is_inside

    zeros = jnp.zeros_like(threshold)
    start = (jnp.int32(0), zeros, zeros.astype(jnp.int32), jnp.zeros_like(zeros, bool))
    return jax.lax.while_loop(lambda state: ~state[3].all(), attempt, start)[2]


def _draw(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """Draw one token per row, [B], with probabilities proportional to `weights` [B, V], using one random number [B] per row.

    The block of the token is determined first, then the token within the block.
    """
    blocks = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % BLOCK))).reshape(len(weights), -1, BLOCK)
    ends = jnp.cumsum(blocks.sum(-1), axis=-1)
    target = _clip_below(uniform * ends[:, -1], ends[:, -1])
    block = jnp.argmax(ends > target[:, None], axis=-1)
    before = jnp.where(jnp.arange(ends.shape[1]) < block[:, None], ends, 0.0).max(-1)
    inner_ends = jnp.cumsum(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], axis=-1)
    inner_target = _clip_below(target - before, inner_ends[:, -1])
    return (block * BLOCK + jnp.argmax(inner_ends > inner_target[:, None], axis=-1)).astype(jnp.int32)


def _clip_below(target: jax.Array, end: jax.Array) -> jax.Array:
    """Return `target`, or the largest number below `end` if rounding has made `target` equal to `end`."""
    return jnp.minimum(target, jnp.nextafter(end, jnp.zeros_like(end)))


def _kth_largest(weights: jax.Array, k: jax.Array) -> jax.Array:
    """Return the k-th largest entry, [B, 1], of each row of `weights` [B, V], which are in [0, 1]; `k` is [B].

    Bisection over the bit patterns of floats, which have the same order as nonnegative floats, is exact and avoids a sort.
    """

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds  # at least k entries are >= low, fewer than k are >= high
        middle = low + (high - low) // 2
        count = (weights >= jax.lax.bitcast_convert_type(middle, jnp.float32)).sum(-1, keepdims=True)
        is_enough = count >= k[:, None]
        return jnp.where(is_enough, middle, low), jnp.where(is_enough, high, middle)

    low = jnp.zeros((weights.shape[0], 1), jnp.int32)
    high = jnp.full_like(low, jax.lax.bitcast_convert_type(jnp.float32(2.0), jnp.int32))
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return jax.lax.bitcast_convert_type(low, jnp.float32)
