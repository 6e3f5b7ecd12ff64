"""The weighted cross-entropy of a model on a batch, used by the objectives "token_mean" and "original"."""

import jax
import jax.numpy as jnp

from wizardcoder_jax.models.dropout import ActivationNoise
from wizardcoder_jax.models.transformer import Transformer
from wizardcoder_jax.training.objectives.chunked_cross_entropy import CrossEntropyOptions, chunked_cross_entropy
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions


def weighted_cross_entropy(model: Transformer, batch: Batch, options: LossOptions) -> jax.Array:
    """Return the sum of weight * loss over all targets, a float32 scalar.

    A target's loss is its cross-entropy plus the regularization terms of `options`.

    Args:
        model: the model.
        batch: packed sequences [B, T].
        options: settings of the forward pass and the regularization.

    Raises:
        InputError: the attention kernel named in `options` does not support these shapes.
    """
    noise = ActivationNoise(seeds=batch.seeds, dropout=options.dropout, neftune_alpha=options.neftune_alpha)
    hidden = model(
        batch.tokens,
        batch.positions,
        batch.segment_ids,
        dtype=options.dtype,
        remat=options.remat,
        attention=options.attention,
        noise=noise if options.dropout or options.neftune_alpha else None,
    )
    terms = CrossEntropyOptions(model.arch.vocab_size, options.z_loss, options.label_smoothing)
    weights = batch.weights.astype(jnp.float32)
    return chunked_cross_entropy(hidden, model.head_table, batch.targets, weights, terms, model.rules, options.chunk)
