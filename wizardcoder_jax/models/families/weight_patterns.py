"""Invertible mappings between Hugging Face tensors and our parameters; import and export both follow them.

Our kernels are [inputs..., outputs...]; a torch Linear stores [outputs, inputs]. Layers are stacked: the tensor of layer {i}
fills index i of our parameter.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax
import numpy as np

from wizardcoder_jax.models.arch import ArchConfig

Shape = tuple[int, ...]


class Pattern(Protocol):
    """The conversion of one Hugging Face tensor to one layer of our parameters, and back."""

    def to_ours(self, tensor: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        """Return our parameters, of `shapes`; as views of `tensor` where possible."""
        ...

    def to_hf(self, parts: list[jax.Array], arch: ArchConfig) -> jax.Array:
        """Return the Hugging Face tensor. Called inside jit."""
        ...

    def hf_shape(self, shapes: list[Shape], arch: ArchConfig) -> Shape:
        """Return the shape of the Hugging Face tensor."""
        ...


@dataclasses.dataclass(frozen=True)
class VectorPattern:
    """A bias or the scale of a norm, reshaped to our dims."""

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
    """An embedding of tokens or positions; ours is padded with zero rows, which export removes."""

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
    """The weight of a Linear; ours is the transpose, with outputs last."""

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


TOKEN_EMBEDDING = EmbeddingPattern(lambda arch: arch.vocab_size)
POSITION_EMBEDDING = EmbeddingPattern(lambda arch: arch.max_positions)
TIED_HEAD = "lm_head.weight"  # files of models with tied embeddings may contain it, as a copy of the token embedding
BUFFER_SUFFIXES = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # tensors in files that are not weights


@dataclasses.dataclass(frozen=True)
class TensorMapping:
    """A Hugging Face tensor (in every layer {i}), our parameters, and the conversion between them."""

    hf_name: str
    params: tuple[str, ...]  # dotted paths in Transformer
    pattern: Pattern

    @property
    def per_layer(self) -> bool:
        """Whether every layer has such a tensor."""
        return "{i}" in self.hf_name


def map_tensor(hf_name: str, param: str, pattern: Pattern) -> TensorMapping:
    """Map one tensor to one parameter."""
    return TensorMapping(hf_name, (param,), pattern)


def map_linear(hf_name: str, param: str, num_in: int = 1) -> list[TensorMapping]:
    """Map weight and bias of a Linear to a projection with `num_in` input dims."""
    weight = map_tensor(f"{hf_name}.weight", f"{param}.kernel", KernelPattern(num_in))
    return [weight, map_tensor(f"{hf_name}.bias", f"{param}.bias", VectorPattern())]


def map_layer_norm(hf_name: str, param: str) -> list[TensorMapping]:
    """Map weight and bias of a LayerNorm."""
    scale = map_tensor(f"{hf_name}.weight", f"{param}.scale", VectorPattern())
    return [scale, map_tensor(f"{hf_name}.bias", f"{param}.bias", VectorPattern())]
