"""The training objective."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wizardcoder_jax.model.transformer import Transformer


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
    logits = model.rules.constrain(model.logits(hidden), "batch", None, "logits")
    chosen = jnp.take_along_axis(logits, batch.targets[..., None], axis=-1)[..., 0]
    return jnp.sum(batch.weights.astype(jnp.float32) * (jax.nn.logsumexp(logits, axis=-1) - chosen))
