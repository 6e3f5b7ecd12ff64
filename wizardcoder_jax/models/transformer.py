"""The decoder-only Transformer that every family is an ArchConfig of, with a stack of blocks that is scanned or unrolled."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from wizardcoder_jax.config import Remat
from wizardcoder_jax.core.sharding import Axes, ShardingRules
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.attention import Attention, RotaryAngles, rotary_angles
from wizardcoder_jax.models.attention_dispatch import AttentionBackend, Segments, select_backend
from wizardcoder_jax.models.dropout import ATTENTION_OUT, EMBEDDING, MLP_OUT, ActivationNoise, Dropout
from wizardcoder_jax.models.kv_cache import CacheView, LayerCache, cache_axes
from wizardcoder_jax.models.layers import Initializer, Mlp, Norm, embedding_lookup
from wizardcoder_jax.models.reference_attention import causal_mask, packed_mask
from wizardcoder_jax.models.remat import INPUT, MIDDLE, keep, rematerialize

RESIDUAL = ("batch", "sequence", None)  # what blocks hand on: [B, T, D], its places split where the strategy asks for it
KVCache = tuple[LayerCache, ...]  # one a block


class Block(nnx.Module):
    """Attention and MLP, each behind a norm and added to its input."""

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
        sight: jax.Array | Segments | CacheView,
        turn: RotaryAngles | None,
        dropout: Dropout | None = None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """[B, T, D] -> [B, T, D], and the fuller cache where there is one; arguments as for Attention."""
        lie = RESIDUAL if not isinstance(sight, CacheView) else ("cache_batch", None, None)
        attended, cache = self.attention(self._whole(self.attention_norm(x), lie), positions, sight, turn, dropout)
        attended = self.rules.constrain(attended, *lie)
        x = keep(x + (attended if dropout is None else dropout(attended, ATTENTION_OUT)), MIDDLE)
        hidden = self.rules.constrain(self.mlp(self._whole(self.mlp_norm(x), lie)), *lie)
        return x + (hidden if dropout is None else dropout(hidden, MLP_OUT)), cache

    def _whole(self, normed: jax.Array, lie: Axes) -> jax.Array:
        """What was split between blocks, brought together again: [B, T, D], every place on every device that needs it."""
        return self.rules.constrain(self.rules.constrain(normed, *lie), "batch", None, None)


class Transformer(nnx.Module):
    """Embeddings, blocks, a final norm and the output head.

    Args:
        arch: the architecture.
        rules: how tensors are split over the mesh.
        key: PRNG key of the initial weights (replaced at once where weights are loaded).
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
        """Final hidden states of packed rows.

        Args:
            tokens: [B, T] token ids.
            positions: [B, T] place of each token in its own segment.
            segment_ids: [B, T]; a token sees its own segment only. A segment lies in one piece.
            dtype: of activations and matmuls.
            remat: what of each block the backward pass computes again; see remat.py.
            attention: "splash" for the blockwise TPU kernel (interpreted elsewhere), "cudnn" for the GPU's, "auto" for that of
                the accelerator where it fits.
            noise: dropout and noise of training; None for none.

        Returns:
            [B, T, D] in `dtype`, ready for `logits`.

        Raises:
            InputError: the kernel that `attention` demands does not fit.
        """
        window, turn, length = self.arch.sliding_window, self._turn(positions), tokens.shape[1]
        rate = noise.dropout if noise else 0.0
        way = select_backend(attention, length=length, head_dim=self.arch.head_dim, dropout=rate, dtype=jnp.dtype(dtype))
        mask = packed_mask(segment_ids, window) if way == "dot" else Segments(segment_ids, window, way)

        def step(x: jax.Array, block: Block, layer: int | jax.Array = 0) -> jax.Array:
            return block(keep(x, INPUT), positions, mask, turn, noise.layer(layer) if noise else None)[0]

        x = self._embed(tokens, positions, dtype, noise, segment_ids)
        layers = (1 + jnp.arange(self.arch.num_layers),) if rate else ()
        x = self._through_blocks(rematerialize(step, remat), x, *layers)
        return self.rules.constrain(self.final_norm(x), "batch", None, None)

    def extend(self, tokens: jax.Array, positions: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
        """The next tokens of every sequence, after those in the cache: one at a time to decode, a piece of prompt to prefill.

        The model's blocks are apart (`unstack_layers`).

        Args:
            tokens: [B, T].
            positions: [B, T] places of the tokens, which are also the slots of the cache that they fill; tokens past the
                last slot fill none.
            cache: S slots; a token sees the slots up to its own, no farther back than the sliding window.

        Returns:
            Hidden states [B, T, D] in the cache's dtype, and the fuller cache.
        """
        assert not isinstance(self.blocks, Block)
        turn = self._turn(positions)
        mask = causal_mask(positions, jnp.arange(cache[0].num_slots), self.arch.sliding_window)
        x, caches = self._embed(tokens, positions, cache[0].values.dtype), []
        for block, held in zip(self.blocks, cache, strict=True):
            x, held = block(x, positions, CacheView(held, mask), turn)
            caches.append(held)
        return self.final_norm(x), tuple(caches)

    def empty_cache(self, batch: int, num_slots: int, dtype: jnp.dtype) -> KVCache:
        """A cache of `num_slots` positions for `batch` sequences."""
        axes = cache_axes(self.rules, self.arch.num_kv_heads)
        shape = (batch, self.arch.num_kv_heads, num_slots, self.arch.head_dim)
        layers = tuple(LayerCache.zeros(shape, dtype) for _ in range(self.arch.num_layers))
        return jax.tree.map(lambda array: self.rules.constrain(array, *axes), layers)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> [..., V] float32, V padded; the padding is -inf, so that it has no probability and no gradient."""
        logits = jnp.einsum("...D,VD->...V", hidden, self.head_table.astype(hidden.dtype), preferred_element_type=jnp.float32)
        if self.arch.padded_vocab_size == self.arch.vocab_size:
            return logits
        return jnp.where(jnp.arange(self.arch.padded_vocab_size) < self.arch.vocab_size, logits, -jnp.inf)

    @property
    def head_table(self) -> jax.Array:
        """The output embedding, [V, D]; the token embedding where they are tied."""
        return (self.tokens if self.head is None else self.head)[...]

    def unstack_layers(self, *, free_stacked: bool = False) -> "Transformer":
        """Return the same model with a list of blocks instead of stacked ones, for loops that unroll them.

        On CPU a scan copies each layer's slice of the stacked weights at every step; unstacked once, they are read in place.
        On TPU the weights of one layer are read from HBM while the previous layer is computed. The split is one operation,
        so that its gradient is one concatenation.

        Args:
            free_stacked: free each stacked array once it is split. The original model must not be used afterwards. Not
                allowed inside jit.
        """
        leaves, treedef = jax.tree.flatten(self.blocks)
        slices = []
        for leaf in leaves:
            slices.append(_layers_of(leaf))
            if free_stacked:
                jax.block_until_ready(slices[-1])
                leaf.delete()
        layers = [jax.tree.unflatten(treedef, [part[i] for part in slices]) for i in range(self.arch.num_layers)]
        model = nnx.clone(self)
        model.blocks = nnx.List(layers)
        return model

    def _turn(self, positions: jax.Array) -> RotaryAngles | None:
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
            x = noise.on_embeddings(x, segment_ids)
        if self.positions is not None:
            x = x + embedding_lookup(self.positions[...], positions, "positions", self.rules, dtype)
        x = self.rules.constrain(x.astype(dtype), *RESIDUAL)
        dropout = noise.layer(0) if noise else None
        return x if dropout is None else dropout(x, EMBEDDING)

    def _through_blocks(self, step: Callable[..., jax.Array], x: jax.Array, *per_layer: jax.Array) -> jax.Array:
        """Folds `step(x, block, *layer) -> x` over the blocks."""
        if isinstance(self.blocks, Block):
            return jax.lax.scan(lambda x, layer: (step(x, *layer), None), x, (self.blocks, *per_layer))[0]
        for layer in zip(self.blocks, *per_layer, strict=True):
            x = step(x, *layer)
        return x


@jax.jit
def _layers_of(stacked: jax.Array) -> list[jax.Array]:
    return [jnp.squeeze(part, 0) for part in jax.lax.split(stacked, (1,) * stacked.shape[0])]


def abstract_transformer(arch: ArchConfig, rules: ShardingRules) -> Transformer:
    """The model with shapes in place of weights."""
    return jax.eval_shape(lambda: Transformer(arch, rules, jax.random.key(0)))
