"""ArchConfig, which describes the architecture of a model of any supported family."""

import dataclasses
from typing import Literal

VOCAB_MULTIPLE = 256  # padded vocabulary sizes are multiples of this: two TPU lane widths, or the 256 devices of a 16x16 pod


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchConfig:
    """The architecture of a decoder-only Transformer."""

    family: str  # Hugging Face's model_type, a key of FAMILIES in models/families/registry.py
    vocab_size: int  # number of tokens, without the padding of the embedding
    embed_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int  # number of key/value heads; 1 is multi-query attention
    head_dim: int
    mlp_dim: int
    max_positions: int  # context length in tokens
    position: Literal["learned", "rope"]
    norm: Literal["layer", "rms"]
    norm_eps: float
    mlp: Literal["gelu", "gelu_tanh", "swiglu"]
    bias: Literal["none", "qkv", "all"]  # which projections have a bias; LayerNorms always have one
    tie_embeddings: bool  # whether the output head shares the token embedding
    rope_theta: float = 10000.0
    rope_scale: float = 1.0  # linear RoPE scaling: positions are divided by this number
    sliding_window: int | None = None  # number of latest tokens that a token attends to, including itself; None: all
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
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.position == "rope" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, got {self.head_dim}")

    @property
    def padded_vocab_size(self) -> int:
        """Number of rows of the stored embedding: `vocab_size` rounded up. Padding rows are never looked up or sampled."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def num_params(self) -> int:
        """Number of parameters of the model, without padding; a tied head is counted once."""
        d, qkv = self.embed_dim, (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        num_up = 2 if self.mlp == "swiglu" else 1
        norm = d * (2 if self.norm == "layer" else 1)
        kernels = d * qkv + self.num_heads * self.head_dim * d + (num_up + 1) * d * self.mlp_dim
        biases = {"none": 0, "qkv": qkv, "all": qkv + d + num_up * self.mlp_dim + d}[self.bias]
        tables = self.vocab_size * d * (1 if self.tie_embeddings else 2)
        tables += self.max_positions * d if self.position == "learned" else 0
        return tables + self.num_layers * (kernels + biases + 2 * norm) + norm
