"""The decoder-only Transformer of all families. Its blocks are either stacked and scanned, or a list that is unrolled."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from wizardcoder_jax.config import Remat
from wizardcoder_jax.core.sharding import Axes, ShardingRules
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.attention import Attention, RotaryAngles, rotary_angles
from wizardcoder_jax.models.attention_dispatch import AttentionBackend, Segments, select_backend
from wizardcoder_jax.models.dropout import ATTENTION_OUT, EMBEDDING, MLP_OUT, ActivationNoise, Dropout
from wizardcoder_jax.models.kv_cache import CacheView, LayerCache, cache_axes
from wizardcoder_jax.models.layers import Initializer, Mlp, Norm, embedding_lookup
from wizardcoder_jax.models.reference_attention import causal_mask, packed_mask
from wizardcoder_jax.models.remat import INPUT, MIDDLE, rematerialize

RESIDUAL_AXES = ("batch", "sequence", None)  # logical axes of the residual stream [B, T, D] between blocks
KVCache = tuple[LayerCache, ...]  # one LayerCache per block


class Block(nnx.Module):
    """A Transformer block: attention and an MLP, each preceded by a norm, with residual connections."""

    def __init__(self, init: Initializer, arch: ArchConfig, rules: ShardingRules) -> None:
        self.attention_norm = Norm(init, arch)
        self.attention = Attention(init, arch, rules)
        self.mlp_norm = Norm(init, arch)
        self.mlp = Mlp(init, arch, rules)
        self.rules = rules

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        attention_mask: jax.Array | Segments | CacheView,
        rope: RotaryAngles | None,
        dropout: Dropout | None = None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """Apply the block: [B, T, D] -> [B, T, D], and the updated cache (None without a cache). Arguments: see Attention."""
        residual_axes = ("cache_batch", None, None) if isinstance(attention_mask, CacheView) else RESIDUAL_AXES
        normed = self._gather_sequence(self.attention_norm(x), residual_axes)
        attended, cache = self.attention(normed, positions, attention_mask, rope, dropout)
        attended = self.rules.constrain(attended, *residual_axes)
        x = checkpoint_name(x + (attended if dropout is None else dropout(attended, ATTENTION_OUT)), MIDDLE)
        hidden = self.rules.constrain(self.mlp(self._gather_sequence(self.mlp_norm(x), residual_axes)), *residual_axes)
        return x + (hidden if dropout is None else dropout(hidden, MLP_OUT)), cache

    def _gather_sequence(self, normed: jax.Array, residual_axes: Axes) -> jax.Array:
        """Gather `normed` [B, T, D], which is split like the residual stream, along the positions of each sequence."""
        return self.rules.constrain(self.rules.constrain(normed, *residual_axes), "batch", None, None)


class Transformer(nnx.Module):
    """A decoder-only language model: embeddings, blocks, a final norm and the output head.

    Args:
        arch: the architecture.
        rules: how tensors are split over the mesh.
        key: PRNG key of the initial weights.
    """

    def __init__(self, arch: ArchConfig, rules: ShardingRules, key: jax.Array) -> None:
        init = Initializer(key)
        vocab, d = arch.padded_vocab_size, arch.embed_dim
        self.tokens = init.normal((vocab, d), ("vocab", None))
        self.positions = init.normal((arch.max_positions, d), ("positions", None)) if arch.position == "learned" else None
        self.blocks = Block(init.stacked(arch.num_layers), arch, rules)
        self.final_norm = Norm(init, arch)
        self.head = None if arch.tie_embeddings else init.normal((vocab, d), ("vocab", None))
        self.arch, self.rules = arch, rules

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array,
        *,
        dtype: jnp.dtype,
        remat: Remat = "none",
        attention: AttentionBackend = "dot",
        noise: ActivationNoise | None = None,
    ) -> jax.Array:
        """Compute the final hidden states of packed sequences.

        Args:
            tokens: [B, T] token ids.
            positions: [B, T] position of each token in its segment.
            segment_ids: [B, T] segment of each token. A token attends to its own segment only, whose tokens are contiguous.
            dtype: dtype of activations and matmuls.
            remat: which activations of each block the backward pass recomputes; see remat.py.
            attention: "dot" for matrix products, "splash" for the blockwise TPU kernel (interpreted elsewhere), "cudnn" for
                the GPU kernel, "auto" for the accelerator's kernel if it supports the shapes.
            noise: dropout and embedding noise in training; None for inference.

        Returns:
            Hidden states [B, T, D] in `dtype`, the input of `logits`.

        Raises:
            InputError: the kernel that `attention` requires does not support the shapes.
        """
        window, rope, length = self.arch.sliding_window, self._rope(positions), tokens.shape[1]
        rate = noise.dropout if noise else 0.0
        backend = select_backend(attention, length=length, head_dim=self.arch.head_dim, dropout=rate, dtype=jnp.dtype(dtype))
        mask = packed_mask(segment_ids, window) if backend == "dot" else Segments(segment_ids, window, backend)

        def step(x: jax.Array, block: Block, layer: int | jax.Array = 0) -> jax.Array:
            dropout = noise.layer_dropout(layer) if noise else None
            return block(checkpoint_name(x, INPUT), positions, mask, rope, dropout)[0]

        x = self._embed(tokens, positions, dtype, noise, segment_ids)
        layers = (1 + jnp.arange(self.arch.num_layers),) if rate else ()
        x = self._apply_blocks(rematerialize(step, remat), x, *layers)
        return self.rules.constrain(self.final_norm(x), "batch", None, None)

    def extend(self, tokens: jax.Array, positions: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
        """Process the next tokens of every sequence: one token to decode, or several tokens of a prompt to prefill.

        Requires unstacked blocks (`unstack_layers`).

        Args:
            tokens: [B, T] token ids.
            positions: [B, T] positions of the tokens, which are also the cache slots to write; tokens after the last slot are
                not written.
            cache: KV cache of S slots. A token attends to the slots up to its own, within the sliding window.

        Returns:
            Hidden states [B, T, D] in the cache's dtype, and the updated cache.
        """
        assert not isinstance(self.blocks, Block)
        rope = self._rope(positions)
        mask = causal_mask(positions, jnp.arange(cache[0].num_slots), self.arch.sliding_window)
        x, caches = self._embed(tokens, positions, cache[0].values.dtype), []
        for block, layer_cache in zip(self.blocks, cache, strict=True):
            x, layer_cache = block(x, positions, CacheView(layer_cache, mask), rope)
            caches.append(layer_cache)
        return self.final_norm(x), tuple(caches)

    def empty_cache(self, batch: int, num_slots: int, dtype: jnp.dtype) -> KVCache:
        """Create a KV cache with `num_slots` slots for each of `batch` sequences."""
        axes = cache_axes(self.rules, self.arch.num_kv_heads)
        shape = (batch, self.arch.num_kv_heads, num_slots, self.arch.head_dim)
        layers = tuple(LayerCache.zeros(shape, dtype) for _ in range(self.arch.num_layers))
        return jax.tree.map(lambda array: self.rules.constrain(array, *axes), layers)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Compute logits: [..., D] -> [..., padded V] float32. Padding is -inf, so it gets no probability and no gradient."""
        logits = jnp.einsum("...D,VD->...V", hidden, self.head_table.astype(hidden.dtype), preferred_element_type=jnp.float32)
        if self.arch.padded_vocab_size == self.arch.vocab_size:
            return logits
        return jnp.where(jnp.arange(self.arch.padded_vocab_size) < self.arch.vocab_size, logits, -jnp.inf)

    @property
    def head_table(self) -> jax.Array:
        """Table of the output head, [V, D]. With tied embeddings, this is the token embedding."""
        return (self.tokens if self.head is None else self.head)[...]

    def unstack_layers(self, *, free_stacked: bool = False) -> "Transformer":
        """Return the same model with a list of blocks instead of stacked ones, for loops that unroll them.

        On CPU, a scan copies each layer's slice of the stacked weights at every step, whereas unstacked weights are read in
        place. On TPU, the weights of an unrolled layer are read from HBM while the previous layer is computed. Each array is
        split in one operation, so that its gradient is one concatenation.

        Args:
            free_stacked: whether to free each stacked array once it is split. The original model must not be used afterwards.
                Not allowed inside jit.
        """
        leaves, treedef = jax.tree.flatten(self.blocks)
        slices = []
        for leaf in leaves:
            slices.append(_split_layers(leaf))
            if free_stacked:
                jax.block_until_ready(slices[-1])
                leaf.delete()
        layers = [jax.tree.unflatten(treedef, [part[i] for part in slices]) for i in range(self.arch.num_layers)]
        model = nnx.clone(self)
        model.blocks = nnx.List(layers)
        return model

    def _rope(self, positions: jax.Array) -> RotaryAngles | None:
        return None if self.positions is not None else rotary_angles(positions, self.arch)

    def _embed(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        dtype: jnp.dtype,
        noise: ActivationNoise | None = None,
        segment_ids: jax.Array | None = None,
    ) -> jax.Array:
        x = embedding_lookup(self.tokens[...], tokens, "vocab", self.rules, dtype)
        if noise is not None and segment_ids is not None:
            x = noise.add_to_embeddings(x, segment_ids)
        if self.positions is not None:
            x = x + embedding_lookup(self.positions[...], positions, "positions", self.rules, dtype)
        x = self.rules.constrain(x.astype(dtype), *RESIDUAL_AXES)
        dropout = noise.layer_dropout(0) if noise else None
        return x if dropout is None else dropout(x, EMBEDDING)

    def _apply_blocks(self, step: Callable[..., jax.Array], x: jax.Array, *per_layer: jax.Array) -> jax.Array:
        """Apply `step(x, block, *values) -> x` for every block, where `values` are the block's elements of `per_layer`."""
        if isinstance(self.blocks, Block):
            return jax.lax.scan(lambda x, layer: (step(x, *layer), None), x, (self.blocks, *per_layer))[0]
        for layer in zip(self.blocks, *per_layer, strict=True):
            x = step(x, *layer)
        return x


@jax.jit
def _split_layers(stacked: jax.Array) -> list[jax.Array]:
    return [jnp.squeeze(part, 0) for part in jax.lax.split(stacked, (1,) * stacked.shape[0])]


def abstract_transformer(arch: ArchConfig, rules: ShardingRules) -> Transformer:
    """Return a model whose parameters are shapes instead of arrays."""
    return jax.eval_shape(lambda: Transformer(arch, rules, jax.random.key(0)))
