"""Adding a token to a model that already has weights."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.transformer import Transformer


def arch_with_token(arch: ArchConfig, token_id: int) -> ArchConfig:
    """Return `arch` with a vocabulary that includes `token_id`."""
    return dataclasses.replace(arch, vocab_size=max(arch.vocab_size, token_id + 1))


def add_token(model: Transformer, token_id: int, mesh: Mesh) -> Transformer:
    """Set the rows of `token_id` in the embedding and the output head to the mean of all earlier rows.

    The vocabulary is enlarged if it does not include the token yet. All other weights are shared with `model`.
    Source: smart_tokenizer_and_embedding_resize in WizardCoder's training script (nlpxucan/WizardLM @cd4b4cc,
    WizardCoder/src/train_wizardcoder.py), which also computes the mean in float32.
    """
    grown = nnx.clone(model)
    grown.arch = arch_with_token(model.arch, token_id)
    num_rows = grown.arch.padded_vocab_size

    def grow(table: jax.Array) -> jax.Array:
        mean = table[:token_id].astype(jnp.float32).mean(axis=0).astype(table.dtype)
        return jnp.pad(table, ((0, num_rows - table.shape[0]), (0, 0))).at[token_id].set(mean)

    for param in filter(None, (grown.tokens, grown.head)):
        sharding = model.rules.sharding(mesh, (num_rows, model.arch.embed_dim), param.axes)
        param.set_value(jax.jit(grow, out_shardings=sharding)(param[...]))
    return grown
