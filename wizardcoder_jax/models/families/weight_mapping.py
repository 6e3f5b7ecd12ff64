"""Which Hugging Face tensor is which of our parameters: one table a family, walked by import and by export.

Our kernels are [inputs..., outputs...]; a torch Linear holds [outputs, inputs]. Layers are stacked: the row for layer {i}
fills index i of our parameter.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from wizardcoder_jax.models.arch import ArchConfig

Shape = tuple[int, ...]


class Pattern(Protocol):
    """How one HF tensor becomes our parameters (one layer's part of each), and back."""

    def to_ours(self, tensor: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        """Our parameters, of `shapes`; views where that can be."""
        ...

    def to_hf(self, parts: list[jax.Array], arch: ArchConfig) -> jax.Array:
        """The HF tensor (traced: the devices do it)."""
        ...

    def hf_shape(self, shapes: list[Shape], arch: ArchConfig) -> Shape:
        """The HF tensor's shape."""
        ...


@dataclasses.dataclass(frozen=True)
class VectorPattern:
    """A bias or a norm's scale: the same numbers, our dims."""

    def to_ours(self, tensor: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        """See Pattern."""
        return [tensor.reshape(shapes[0])]

    def to_hf(self, parts: list[jax.Array], arch: ArchConfig) -> jax.Array:
        """See Pattern."""
        return parts[0].reshape(-1)

    def hf_shape(self, shapes: list[Shape], arch: ArchConfig) -> Shape:
        """See Pattern."""
        return (math.prod(shapes[0]),)


@dataclasses.dataclass(frozen=True)
class EmbeddingPattern:
    """An embedding: rows are tokens or positions; ours is padded with zero rows that export strips."""

    num_rows: Callable[[ArchConfig], int]

    def to_ours(self, tensor: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        """See Pattern."""
        padding = shapes[0][0] - tensor.shape[0]
        return [np.pad(tensor, ((0, padding), (0, 0))) if padding else tensor]

    def to_hf(self, parts: list[jax.Array], arch: ArchConfig) -> jax.Array:
        """See Pattern."""
        return parts[0][: self.num_rows(arch)]

    def hf_shape(self, shapes: list[Shape], arch: ArchConfig) -> Shape:
        """See Pattern."""
        return (self.num_rows(arch), shapes[0][1])


@dataclasses.dataclass(frozen=True)
class KernelPattern:
    """A Linear's weight: ours is the transpose, its last dims the outputs."""

    num_in: int = 1

    def to_ours(self, tensor: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        """See Pattern."""
        return [tensor.T.reshape(shapes[0])]

    def to_hf(self, parts: list[jax.Array], arch: ArchConfig) -> jax.Array:
        """See Pattern."""
        return parts[0].reshape(math.prod(parts[0].shape[: self.num_in]), -1).T

    def hf_shape(self, shapes: list[Shape], arch: ArchConfig) -> Shape:
        """See Pattern."""
        return (math.prod(shapes[0][self.num_in :]), math.prod(shapes[0][: self.num_in]))


@dataclasses.dataclass(frozen=True)
class FusedQkvPattern:
    """GPTBigCode's c_attn, weight or bias.

    With one kv head its outputs are all query heads, then the key, then the value; with as many kv heads as query heads
    they are [query, key, value] head by head.
    """

    def to_ours(self, tensor: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        """See Pattern."""
        num_heads, num_kv_heads, head_dim = shapes[0][-2], shapes[1][-2], shapes[0][-1]
        outputs = tensor.T.reshape(*tensor.T.shape[:-1], -1, head_dim)  # [..., heads of all kinds, H]
        if num_kv_heads == 1:
            return np.split(outputs, [num_heads, num_heads + 1], axis=-2)
        by_head = outputs.reshape(*outputs.shape[:-2], num_heads, 3, head_dim)
        return [by_head[..., i, :] for i in range(3)]

    def to_hf(self, parts: list[jax.Array], arch: ArchConfig) -> jax.Array:
        """See Pattern."""
        joined = jnp.concatenate(parts, axis=-2) if arch.num_kv_heads == 1 else jnp.stack(parts, axis=-2)
        leading = parts[0].shape[:-2]
        return joined.reshape(*leading, -1).T

    def hf_shape(self, shapes: list[Shape], arch: ArchConfig) -> Shape:
        """See Pattern."""
        return (sum(math.prod(shape[-2:]) for shape in shapes), *shapes[0][:-2])


@dataclasses.dataclass(frozen=True)
class TensorMapping:
    """One line of a mapping: an HF name ({i} is the layer), our parameters, and how they correspond."""

    hf: str
    ours: tuple[str, ...]
    pattern: Pattern

    @property
    def per_layer(self) -> bool:
        """Whether there is one such tensor a layer."""
        return "{i}" in self.hf


def _row(hf: str, ours: str, pattern: Pattern) -> TensorMapping:
    return TensorMapping(hf, (ours,), pattern)


_QKV = ("query", "key", "value")
_TOKENS = EmbeddingPattern(lambda arch: arch.vocab_size)
_POSITIONS = EmbeddingPattern(lambda arch: arch.max_positions)


def _with_bias(hf: str, ours: str, num_in: int = 1) -> list[TensorMapping]:
    return [_row(f"{hf}.weight", f"{ours}.kernel", KernelPattern(num_in)), _row(f"{hf}.bias", f"{ours}.bias", VectorPattern())]


def _layer_norm(hf: str, ours: str) -> list[TensorMapping]:
    return [_row(f"{hf}.weight", f"{ours}.scale", VectorPattern()), _row(f"{hf}.bias", f"{ours}.bias", VectorPattern())]


_GPT_BIGCODE = [
    _row("transformer.wte.weight", "tokens", _TOKENS),
    _row("transformer.wpe.weight", "positions", _POSITIONS),
    *_layer_norm("transformer.h.{i}.ln_1", "blocks.attention_norm"),
    TensorMapping(
        "transformer.h.{i}.attn.c_attn.weight", tuple(f"blocks.attention.{name}.kernel" for name in _QKV), FusedQkvPattern()
    ),
    TensorMapping(
        "transformer.h.{i}.attn.c_attn.bias", tuple(f"blocks.attention.{name}.bias" for name in _QKV), FusedQkvPattern()
    ),
    *_with_bias("transformer.h.{i}.attn.c_proj", "blocks.attention.out", num_in=2),
    *_layer_norm("transformer.h.{i}.ln_2", "blocks.mlp_norm"),
    *_with_bias("transformer.h.{i}.mlp.c_fc", "blocks.mlp.up"),
    *_with_bias("transformer.h.{i}.mlp.c_proj", "blocks.mlp.down"),
    *_layer_norm("transformer.ln_f", "final_norm"),
    _row("lm_head.weight", "head", _TOKENS),
]

_ROTARY = [  # the names that Llama began and the others took over
    _row("model.embed_tokens.weight", "tokens", _TOKENS),
    _row("model.layers.{i}.self_attn.q_proj.weight", "blocks.attention.query.kernel", KernelPattern()),
    _row("model.layers.{i}.self_attn.k_proj.weight", "blocks.attention.key.kernel", KernelPattern()),
    _row("model.layers.{i}.self_attn.v_proj.weight", "blocks.attention.value.kernel", KernelPattern()),
    _row("model.layers.{i}.self_attn.o_proj.weight", "blocks.attention.out.kernel", KernelPattern(num_in=2)),
    _row("lm_head.weight", "head", _TOKENS),
]

_QKV_BIASES = [
    _row("model.layers.{i}.self_attn.q_proj.bias", "blocks.attention.query.bias", VectorPattern()),
    _row("model.layers.{i}.self_attn.k_proj.bias", "blocks.attention.key.bias", VectorPattern()),
    _row("model.layers.{i}.self_attn.v_proj.bias", "blocks.attention.value.bias", VectorPattern()),
]

_STARCODER2 = [
    *_ROTARY,
    *_QKV_BIASES,
    _row("model.layers.{i}.self_attn.o_proj.bias", "blocks.attention.out.bias", VectorPattern()),
    *_layer_norm("model.layers.{i}.input_layernorm", "blocks.attention_norm"),
    *_layer_norm("model.layers.{i}.post_attention_layernorm", "blocks.mlp_norm"),
    *_with_bias("model.layers.{i}.mlp.c_fc", "blocks.mlp.up"),
    *_with_bias("model.layers.{i}.mlp.c_proj", "blocks.mlp.down"),
    *_layer_norm("model.norm", "final_norm"),
]

_LLAMA = [
    *_ROTARY,
    _row("model.layers.{i}.input_layernorm.weight", "blocks.attention_norm.scale", VectorPattern()),
    _row("model.layers.{i}.post_attention_layernorm.weight", "blocks.mlp_norm.scale", VectorPattern()),
    _row("model.layers.{i}.mlp.gate_proj.weight", "blocks.mlp.gate.kernel", KernelPattern()),
    _row("model.layers.{i}.mlp.up_proj.weight", "blocks.mlp.up.kernel", KernelPattern()),
    _row("model.layers.{i}.mlp.down_proj.weight", "blocks.mlp.down.kernel", KernelPattern()),
    _row("model.norm.weight", "final_norm.scale", VectorPattern()),
]

MAPPINGS: dict[str, list[TensorMapping]] = {
    "gpt_bigcode": _GPT_BIGCODE,
    "starcoder2": _STARCODER2,
    "llama": _LLAMA,
    "qwen2": [*_LLAMA, *_QKV_BIASES],
}
TIED_HEAD = "lm_head.weight"  # may stand in a file beside the embedding that it repeats
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # endings of tensors that are no weights


def rows(arch: ArchConfig) -> list[TensorMapping]:
    """The mapping of `arch`: the head only where it is not the embedding, biases of projections only where there are any."""

    def held(row: TensorMapping) -> bool:
        if row.hf == TIED_HEAD:
            return not arch.tie_embeddings
        return arch.bias != "none" or not row.ours[0].endswith(".bias") or "norm" in row.ours[0]

    return [row for row in MAPPINGS[arch.family] if held(row)]
