"""Invertible mappings between Hugging Face tensors and our parameters, for both import and export.

Our kernels have the shape [inputs..., outputs...], whereas a torch Linear stores [outputs, inputs]. Our layers are stacked: the
tensor of layer {i} is stored at index i of our parameter.
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
    """The conversion between one Hugging Face tensor and one layer of our parameters."""

    def to_ours(self, tensor: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        """Return our parameters with the given `shapes`, as views of `tensor` where possible."""
        ...

    def to_hf(self, parts: list[jax.Array], arch: ArchConfig) -> jax.Array:
        """Return the Hugging Face tensor. Called inside jit."""
        ...

    def hf_shape(self, shapes: list[Shape], arch: ArchConfig) -> Shape:
        """Return the shape of the Hugging Face tensor."""
        ...


@dataclasses.dataclass(frozen=True)
class VectorPattern:
    """The pattern of a bias or a norm's scale, which is only reshaped."""

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
    """The pattern of a token or position embedding. Ours is padded with zero rows, which export removes."""

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
    """The pattern of a Linear's weight. Ours is the transpose, with outputs last."""

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
TIED_HEAD = "lm_head.weight"  # files of models with tied embeddings may contain it as a copy of the embedding
BUFFER_SUFFIXES = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # tensors that are not weights


@dataclasses.dataclass(frozen=True)
class TensorMapping:
    """The name of a Hugging Face tensor ("{i}" is the layer), our parameters, and the conversion between them."""

    hf_name: str
    params: tuple[str, ...]  # dotted paths of our parameters in Transformer
    pattern: Pattern

    @property
    def per_layer(self) -> bool:
        """Whether there is one such tensor per layer."""
        return "{i}" in self.hf_name


def map_tensor(hf_name: str, param: str, pattern: Pattern) -> TensorMapping:
    """Map one tensor to one parameter."""
    return TensorMapping(hf_name, (param,), pattern)


def map_linear(hf_name: str, param: str, num_in: int = 1) -> list[TensorMapping]:
    """Map the weight and bias of a Linear to a projection with `num_in` input dims."""
    weight = map_tensor(f"{hf_name}.weight", f"{param}.kernel", KernelPattern(num_in))
    return [weight, map_tensor(f"{hf_name}.bias", f"{param}.bias", VectorPattern())]


def map_layer_norm(hf_name: str, param: str) -> list[TensorMapping]:
    """Map the weight and bias of a LayerNorm to the scale and bias of a Norm."""
    scale = map_tensor(f"{hf_name}.weight", f"{param}.scale", VectorPattern())
    return [scale, map_tensor(f"{hf_name}.bias", f"{param}.bias", VectorPattern())]
