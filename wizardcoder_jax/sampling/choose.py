"""The choice of the next token: greedy, temperature, nucleus."""

import jax
import jax.numpy as jnp


def choose(logits: jax.Array, uniform: jax.Array, temperature: float, top_p: float) -> jax.Array:
    """The next token of every sequence.

    One uniform number a sequence picks from the cumulative distribution, so that a choice depends on its own row alone.

    Args:
        logits: [B, V] float32.
        uniform: [B] in [0, 1).
        temperature: 0 takes the likeliest token.
        top_p: keep the smallest set of likeliest tokens with at least this probability (Holtzman et al., arXiv 1904.09751).

    Returns:
        [B] token ids, int32.
    """
    if temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    probabilities = jax.nn.softmax(logits / temperature, axis=-1)
    if top_p < 1:
        probabilities = jnp.where(probabilities >= _nucleus_floor(probabilities, top_p), probabilities, 0.0)
    cumulative = jnp.cumsum(probabilities, axis=-1)
    total = cumulative[:, -1:]
    target = jnp.minimum(uniform[:, None] * total, jnp.nextafter(total, jnp.zeros_like(total)))
    return jnp.argmax(cumulative > target, axis=-1).astype(jnp.int32)


def _nucleus_floor(probabilities: jax.Array, top_p: float) -> jax.Array:
    """The least probability in the nucleus, [B, 1].

    Found by bisection over the bits of a float, which are ordered as the floats are: exact, and no sort of the vocabulary.
    """

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds  # the mass above `low` suffices, the mass above `high` does not
        middle = low + (high - low) // 2
        kept = jnp.where(probabilities >= jax.lax.bitcast_convert_type(middle, jnp.float32), probabilities, 0.0)
        enough = kept.sum(-1, keepdims=True) >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low = jnp.zeros((probabilities.shape[0], 1), jnp.int32)
    high = jnp.full_like(low, jax.lax.bitcast_convert_type(jnp.float32(2.0), jnp.int32))
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return jax.lax.bitcast_convert_type(low, jnp.float32)
