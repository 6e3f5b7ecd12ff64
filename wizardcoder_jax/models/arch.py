"""The architecture of a model: every choice that the families combine."""

import dataclasses
from typing import Literal

VOCAB_MULTIPLE = 256  # vocabularies are padded to a multiple: two TPU lane widths, and divisible by a 16x16 pod's devices


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchConfig:
    """The architecture of a decoder-only Transformer."""

    family: str  # model_type of Hugging Face, a key of models/families/registry.py
    vocab_size: int  # tokens, without the padding of the embedding
    embed_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int  # 1 is multi-query attention
    head_dim: int
    mlp_dim: int
    max_positions: int  # context length, tokens
    position: Literal["learned", "rope"]
    norm: Literal["layer", "rms"]
    norm_eps: float
    mlp: Literal["gelu", "gelu_tanh", "swiglu"]
    bias: Literal["none", "qkv", "all"]  # which projections have one; a LayerNorm always does, the output head never
    tie_embeddings: bool  # whether the output head is the token embedding
    rope_theta: float = 10000.0
    rope_scale: float = 1.0  # linear scaling: positions are divided by this
    sliding_window: int | None = None  # a token attends to this many latest tokens, itself included; None: to all
    bos_id: int | None = None
    eos_id: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1:
                raise ValueError(f"{field.name} must be at least 1, got {value}")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ValueError(f"sliding_window must be at least 1 or None, got {self.sliding_window}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide into num_kv_heads {self.num_kv_heads} groups")
        if self.position == "rope" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, got {self.head_dim}")

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the stored embedding: `vocab_size` rounded up. The padding is never looked up or sampled."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def num_params(self) -> int:
        """Parameters of the model, without padding; a tied head counts once."""
        d, qkv = self.embed_dim, (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        num_up = 2 if self.mlp == "swiglu" else 1
        norm = d * (2 if self.norm == "layer" else 1)
        kernels = d * qkv + self.num_heads * self.head_dim * d + (num_up + 1) * d * self.mlp_dim
        biases = {"none": 0, "qkv": qkv, "all": qkv + d + num_up * self.mlp_dim + d}[self.bias]
        tables = self.vocab_size * d * (1 if self.tie_embeddings else 2)
        tables += self.max_positions * d if self.position == "learned" else 0
        return tables + self.num_layers * (kernels + biases + 2 * norm) + norm
