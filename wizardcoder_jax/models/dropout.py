"""Random changes to activations in training: dropout, and NEFTune's noise on the embeddings.

The random numbers for a sequence derive from its seed, the layer and the site within the layer. They therefore depend neither
on the mesh nor on the split of a step into microbatches, and rematerialized activations get the same random numbers again.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

EMBEDDING, ATTENTION, ATTENTION_OUT, MLP_OUT, NEFTUNE = range(5)  # sites in a layer, each with independent random numbers


class Dropout(NamedTuple):
    """Dropout of one layer, at the sites of transformers' GPTBigCode (embd_pdrop, attn_pdrop, resid_pdrop)."""

    keys: jax.Array  # [B] PRNG keys, one per sequence
    rate: float  # fraction of elements to set to 0

    def keys_at(self, site: int) -> jax.Array:
        """Return the PRNG keys [B] of one site in the layer."""
        return fold_in_rows(self.keys, site)

    def __call__(self, x: jax.Array, site: int) -> jax.Array:
        """Set random elements of x [B, ...] to 0 and scale up the rest to keep the expectation (Srivastava et al., 2014)."""
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(self.keys_at(site))
        return scale_kept(x, kept, self.rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActivationNoise:
    """Dropout and embedding noise of one forward pass in training.

    Args:
        seeds: [B] uint32 seeds, one per sequence.
        dropout: fraction of elements to set to 0; 0.0 turns dropout off.
        neftune_alpha: scale of the noise on the embeddings; 0.0 turns it off.
    """

    seeds: jax.Array
    dropout: float = 0.0
    neftune_alpha: float = 0.0

    def layer_dropout(self, layer: int | jax.Array) -> Dropout | None:
        """Return the dropout of a layer, or None if it is off. Layer 0 is the embedding, and layer 1 is the first block."""
        return Dropout(fold_in_rows(self._keys(), layer), self.dropout) if self.dropout else None

    def add_to_embeddings(self, x: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """Add uniform noise from -alpha / sqrt(L D) to alpha / sqrt(L D) to token embeddings [B, T, D].

        L is the number of tokens in the example that contains the token. Source: NEFTune, arXiv 2310.05914, algorithm 1, where
        a sequence contains one example.
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
    """Fold `number` into each of the PRNG keys [B]; see `jax.random.fold_in`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def scale_kept(x: jax.Array, kept: jax.Array, rate: float) -> jax.Array:
    """Divide the kept elements by the keep probability 1 - rate, and set the others to 0."""
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def segment_lengths(segment_ids: jax.Array) -> jax.Array:
    """Return the number of tokens in each token's segment: segment ids [B, T], each at most T -> [B, T] int32."""
    count = lambda ids: jnp.zeros(len(ids) + 1, jnp.int32).at[ids].add(1)[ids]  # noqa: E731
    return jax.vmap(count)(segment_ids)
