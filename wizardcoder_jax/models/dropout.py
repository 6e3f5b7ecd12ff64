"""Random changes to activations in training: dropout, and NEFTune's noise on the embeddings.

All randomness of a row comes from the row's seed, the layer and the site in the layer. It therefore depends neither on the mesh
nor on the split of a step into microbatches, and rematerialized activations get the same values again.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

EMBEDDING, ATTENTION, ATTENTION_OUT, MLP_OUT, NEFTUNE = range(5)  # sites in the model with independent random bits


class Dropout(NamedTuple):
    """Dropout of one layer, at the sites of transformers' GPTBigCode (embd_pdrop, attn_pdrop, resid_pdrop)."""

    keys: jax.Array  # [B], one PRNG key for each row
    rate: float  # share of elements set to 0

    def keys_at(self, site: int) -> jax.Array:
        """Return the keys of one site in the layer, [B]."""
        return fold_in_rows(self.keys, site)

    def __call__(self, x: jax.Array, site: int) -> jax.Array:
        """Set elements of [B, ...] to 0 or scale them up, so that their expectation stays (Srivastava et al., 2014)."""
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(self.keys_at(site))
        return scale_kept(x, kept, self.rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActivationNoise:
    """The random changes in one forward pass of training.

    Args:
        seeds: [B] uint32, one for each row.
        dropout: share of elements set to 0; 0.0 draws no random numbers.
        neftune_alpha: scale of the noise on the embeddings; 0.0 draws no random numbers.
    """

    seeds: jax.Array
    dropout: float = 0.0
    neftune_alpha: float = 0.0

    def layer_dropout(self, layer: int | jax.Array) -> Dropout | None:
        """Return the dropout of a layer, or None if it is off; layer 0 is the embedding, the blocks start at 1."""
        return Dropout(fold_in_rows(self._keys(), layer), self.dropout) if self.dropout else None

    def add_to_embeddings(self, x: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """Add uniform noise of at most alpha / sqrt(L D) to token embeddings [B, T, D].

        L is the number of tokens in the token's own example.
        Source: NEFTune, arXiv 2310.05914, algorithm 1, for rows of one example; packed rows use L of each example.
        """
        if not self.neftune_alpha:
            return x
        keys = fold_in_rows(fold_in_rows(self._keys(), 0), NEFTUNE)
        noise = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], jnp.float32, -1, 1))(keys)
        lengths = segment_lengths(segment_ids)[..., None].astype(jnp.float32)
        return x + (noise * self.neftune_alpha / jnp.sqrt(lengths * x.shape[-1])).astype(x.dtype)

    def _keys(self) -> jax.Array:
        return jax.vmap(jax.random.key)(self.seeds)


def fold_in_rows(keys: jax.Array, number: int | jax.Array) -> jax.Array:
    """Fold `number` into keys [B], as `jax.random.fold_in` does for one key."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def scale_kept(x: jax.Array, kept: jax.Array, rate: float) -> jax.Array:
    """Divide kept elements by the expected share that is kept; set the others to 0."""
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def segment_lengths(segment_ids: jax.Array) -> jax.Array:
    """Return the number of tokens in each token's own segment, [B, T] -> [B, T] int32; ids are at most T."""
    count = lambda ids: jnp.zeros(len(ids) + 1, jnp.int32).at[ids].add(1)[ids]  # noqa: E731
    return jax.vmap(count)(segment_ids)
