"""What training adds to activations at random: dropout, and NEFTune's noise on the embeddings.

All randomness of a row comes from its own seed, the layer and the place in it, so that it depends neither on the mesh nor on
how a step is split into microbatches, and is drawn again alike where activations are recomputed.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

EMBEDDING, ATTENTION, ATTENTION_OUT, MLP_OUT, NEFTUNE = range(5)  # places in the model, each with draws of its own


class Dropout(NamedTuple):
    """Dropout of one layer; where transformers' GPTBigCode has it (embd_pdrop, attn_pdrop, resid_pdrop)."""

    keys: jax.Array  # [B], a PRNG key a row
    rate: float  # share of elements that become 0

    def at(self, place: int) -> jax.Array:
        """The keys of one place in the layer, [B]."""
        return fold_keys(self.keys, place)

    def __call__(self, x: jax.Array, place: int) -> jax.Array:
        """[B, ...] -> [B, ...]: elements are 0 or scaled up, so that their expectation stays (Srivastava et al., 2014)."""
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(self.at(place))
        return scale_kept(x, kept, self.rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActivationNoise:
    """What a forward pass of training adds.

    Args:
        seeds: [B] uint32, one a row.
        dropout: share of elements that become 0; 0.0 draws nothing.
        neftune_alpha: scale of the noise on the embeddings; 0.0 draws nothing.
    """

    seeds: jax.Array
    dropout: float = 0.0
    neftune_alpha: float = 0.0

    def layer(self, index: int | jax.Array) -> Dropout | None:
        """Dropout of layer `index`, the embedding being layer 0 and the blocks those from 1 on; None where it is off."""
        return Dropout(fold_keys(self._keys(), index), self.dropout) if self.dropout else None

    def on_embeddings(self, x: jax.Array, segment_ids: jax.Array) -> jax.Array:
        """Token embeddings [B, T, D] with uniform noise of at most alpha / sqrt(L D), L the tokens of a token's own example.

        Source: NEFTune, arXiv 2310.05914, algorithm 1, which has one example a row; rows packed of several have L of each.
        """
        if not self.neftune_alpha:
            return x
        keys = fold_keys(fold_keys(self._keys(), 0), NEFTUNE)
        noise = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], jnp.float32, -1, 1))(keys)
        lengths = segment_lengths(segment_ids)[..., None].astype(jnp.float32)
        return x + (noise * self.neftune_alpha / jnp.sqrt(lengths * x.shape[-1])).astype(x.dtype)

    def _keys(self) -> jax.Array:
        return jax.vmap(jax.random.key)(self.seeds)


def fold_keys(keys: jax.Array, number: int | jax.Array) -> jax.Array:
    """Keys [B] of draws that are independent for every number."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def scale_kept(x: jax.Array, kept: jax.Array, rate: float) -> jax.Array:
    """`x` where it is kept, divided by the share that is; 0 elsewhere."""
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def segment_lengths(segment_ids: jax.Array) -> jax.Array:
    """How many tokens of its row are of each token's own segment, [B, T] -> [B, T] int32; ids are at most T."""
    count = lambda ids: jnp.zeros(len(ids) + 1, jnp.int32).at[ids].add(1)[ids]  # noqa: E731
    return jax.vmap(count)(segment_ids)
