"""The training objective: cross-entropy of the supervised tokens, without the logits of all tokens."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wizardcoder_jax.model.transformer import Transformer
from wizardcoder_jax.sharding import Rules

CHUNK = 128  # places of each row whose logits exist at a time


class Batch(NamedTuple):
    """Packed rows, [B, T] each (or [A, B, T]: A microbatches)."""

    tokens: jax.Array  # int32 inputs
    targets: jax.Array  # int32, the token after each
    weights: jax.Array  # of each target in the loss: 1 in responses, 0 in prompts and padding
    segment_ids: jax.Array  # int32, which example of its row; 0 is padding
    positions: jax.Array  # int32, place in its own example


def weighted_loss(model: Transformer, batch: Batch, dtype: jnp.dtype, remat: bool) -> jax.Array:
    """The sum over targets of weight * cross-entropy, a float32 scalar.

    Args:
        model: the weights.
        batch: rows [B, T].
        dtype: of activations and matmuls.
        remat: recompute each block's activations in the backward pass.
    """
    hidden = model(batch.tokens, batch.positions, batch.segment_ids, dtype=dtype, remat=remat)
    weights = batch.weights.astype(jnp.float32)
    return cross_entropy(hidden, model.head_table, batch.targets, weights, model.arch.vocab_size, model.rules)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def cross_entropy(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, weights: jax.Array, vocab_size: int, rules: Rules
) -> jax.Array:
    """The sum of weight * cross-entropy over all places.

    Places of weight 0 cost nothing: each row's others are brought to its front, and only as many chunks are computed as
    the fullest row needs. The gradient is found in the same pass, chunk by chunk, so no logits are kept or made twice.

    Args:
        hidden: [B, T, D] final hidden states.
        table: [V, D] output embedding, padded.
        targets: [B, T] token ids.
        weights: [B, T] float32.
        vocab_size: rows of the table that are tokens.
        rules: how activations are split over the mesh.

    Returns:
        A float32 scalar.
    """
    return _forward(hidden, table, targets, weights, vocab_size, rules)[0]


def _forward(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, weights: jax.Array, vocab_size: int, rules: Rules
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    length = hidden.shape[1]
    chunk = min(CHUNK, length)
    padded = -(-length // chunk) * chunk
    order = jnp.argsort(weights == 0, axis=1, stable=True)

    def to_front(array: jax.Array) -> jax.Array:
        """Each row's supervised places first, then the rest, then padding to whole chunks."""
        places = order.reshape(order.shape + (1,) * (array.ndim - 2))
        spare = ((0, 0), (0, padded - length), (0, 0))[: array.ndim]
        return jnp.pad(jnp.take_along_axis(array, places, axis=1), spare)

    front, targets, weights = to_front(hidden), to_front(targets), to_front(weights)
    num_chunks = (jnp.count_nonzero(weights, axis=1).max() + chunk - 1) // chunk
    kernel = table.astype(hidden.dtype)
    tokens = jnp.arange(table.shape[0])

    def step(i: jax.Array, sums: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        loss, hidden_grad, table_grad = sums
        cut = lambda array: jax.lax.dynamic_slice_in_dim(array, i * chunk, chunk, axis=1)  # noqa: E731
        part, target, weight = cut(front), cut(targets)[..., None], cut(weights)[..., None]
        logits = jnp.einsum("BCD,VD->BCV", part, kernel, preferred_element_type=jnp.float32)
        logits = rules.constrain(jnp.where(tokens < vocab_size, logits, -jnp.inf), "batch", None, "logits")
        normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        chosen = jnp.take_along_axis(logits, target, axis=-1)
        grad = (weight * (jnp.exp(logits - normaliser) - (tokens == target))).astype(hidden.dtype)
        part_grad = jnp.einsum("BCV,VD->BCD", grad, kernel)
        return (
            loss + jnp.sum(weight * (normaliser - chosen)),
            jax.lax.dynamic_update_slice_in_dim(hidden_grad, part_grad, i * chunk, axis=1),
            table_grad + jnp.einsum("BCV,BCD->VD", grad, part, preferred_element_type=jnp.float32),
        )

    zeros = (jnp.float32(0), jnp.zeros_like(front), jnp.zeros(table.shape, jnp.float32))
    loss, hidden_grad, table_grad = jax.lax.fori_loop(0, num_chunks, step, zeros)
    back = jnp.argsort(order, axis=1)[..., None]
    hidden_grad = jnp.take_along_axis(hidden_grad[:, :length], back, axis=1)
    return loss, (hidden_grad, table_grad.astype(table.dtype))


def _backward(
    vocab_size: int, rules: Rules, grads: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    hidden_grad, table_grad = grads
    return hidden_grad * cotangent.astype(hidden_grad.dtype), table_grad * cotangent, None, None


cross_entropy.defvjp(_forward, _backward)
