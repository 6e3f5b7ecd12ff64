"""The choice of the next token, every row by its own numbers: greedy, or drawn after penalty, temperature, top-k, top-p, min-p.

A row's choice depends on its own logits, options and uniform numbers alone. Drawing passes over the vocabulary few times: no
sort, no random number for each of its entries.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wizardcoder_jax.inference.request import Needs, Options

BLOCK = 256  # entries of the vocabulary that are added up together


def choose(
    logits: jax.Array, seen: jax.Array, draw: Callable[[jax.Array], jax.Array], options: Options, needs: Needs
) -> jax.Array:
    """The next token of every sequence.

    Args:
        logits: [B, V] float32.
        seen: [B, V] bool, tokens that have occurred; read only for a repetition penalty.
        draw: the number of an attempt -> [B] uniform in [0, 1).
        options: [B] each.
        needs: the steps that are not left out.

    Returns:
        [B] token ids, int32.
    """
    if needs.repetition_penalty:
        penalty = options.repetition_penalty[:, None]
        logits = jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if not needs.sampled:
        return likeliest
    is_sampled = options.temperature > 0
    heat = jnp.where(is_sampled, options.temperature, 1.0)[:, None]
    weights = jnp.exp((logits - logits.max(-1, keepdims=True)) / heat)  # the largest is 1
    if needs.top_k:
        weights = jnp.where(weights >= _kth_largest(weights, options.top_k), weights, 0.0)
    allowed = jnp.where(weights >= options.min_p[:, None], weights, 0.0) if needs.min_p else weights
    drawn = _in_nucleus(weights, allowed, draw, options.top_p) if needs.top_p else _drawn(allowed, draw(jnp.int32(0)))
    return jnp.where(is_sampled, drawn, likeliest)


def _in_nucleus(weights: jax.Array, allowed: jax.Array, draw: Callable[[jax.Array], jax.Array], top_p: jax.Array) -> jax.Array:
    """A draw from those of `allowed` that are in the nucleus of `weights`: [B, V] each -> [B].

    A token is in the nucleus where the tokens likelier than it do not suffice. So one is drawn from all, kept if it is in, and
    else drawn again from the likelier ones: what is kept is distributed as a draw from the nucleus, and the nucleus itself is
    never made. With top_p 0.95, 19 of 20 first draws are kept.
    """
    enough = jnp.maximum(top_p * weights.sum(-1), jnp.finfo(jnp.float32).tiny)  # the likeliest is always in

    def attempt(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        number, floor, tokens, settled = state
        drawn = _drawn(jnp.where(allowed > floor[:, None], allowed, 0.0), draw(number))
        weight = jnp.take_along_axis(weights, drawn[:, None], axis=1)
        inside = jnp.where(weights > weight, weights, 0.0).sum(-1) < enough
        tokens = jnp.where(settled, tokens, drawn)
        return number + 1, jnp.where(settled | inside, floor, weight[:, 0]), tokens, settled | inside

    rows = jnp.zeros_like(enough)
    start = (jnp.int32(0), rows, rows.astype(jnp.int32), jnp.zeros_like(rows, bool))
    return jax.lax.while_loop(lambda state: ~state[3].all(), attempt, start)[2]


def _drawn(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """One token a row with probability as its weight, [B, V] and [B] -> [B]: its block is found first, then its place there."""
    blocks = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % BLOCK))).reshape(len(weights), -1, BLOCK)
    ends = jnp.cumsum(blocks.sum(-1), axis=-1)
    target = _below(uniform * ends[:, -1], ends[:, -1])
    block = jnp.argmax(ends > target[:, None], axis=-1)
    before = jnp.where(jnp.arange(ends.shape[1]) < block[:, None], ends, 0.0).max(-1)
    inner_ends = jnp.cumsum(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], axis=-1)
    inner_target = _below(target - before, inner_ends[:, -1])
    return (block * BLOCK + jnp.argmax(inner_ends > inner_target[:, None], axis=-1)).astype(jnp.int32)


def _below(target: jax.Array, end: jax.Array) -> jax.Array:
    """`target`, or the largest number below `end` where rounding has brought it there."""
    return jnp.minimum(target, jnp.nextafter(end, jnp.zeros_like(end)))


def _kth_largest(weights: jax.Array, k: jax.Array) -> jax.Array:
    """The k-th largest of each row, [B, V] of numbers in [0, 1] and [B] -> [B, 1].

    Found by bisection over the bits of a float, which are ordered as the floats are: exact, and no sort.
    """

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds  # k numbers are at least `low`, fewer are at least `high`
        middle = low + (high - low) // 2
        count = (weights >= jax.lax.bitcast_convert_type(middle, jnp.float32)).sum(-1, keepdims=True)
        enough = count >= k[:, None]
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low = jnp.zeros((weights.shape[0], 1), jnp.int32)
    high = jnp.full_like(low, jax.lax.bitcast_convert_type(jnp.float32(2.0), jnp.int32))
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return jax.lax.bitcast_convert_type(low, jnp.float32)
