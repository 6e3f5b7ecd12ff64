"""What a model is: every choice of architecture, enumerated, and the families that combine them."""

import dataclasses
from typing import Any, Literal

VOCAB_MULTIPLE = 256  # embedding tables are padded to it: two lane widths of a TPU, and the devices of a 16x16 pod divide it


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchConfig:
    """One decoder-only Transformer, up to its weights."""

    family: Literal["gpt_bigcode", "starcoder2", "llama", "qwen2"]
    vocab_size: int  # rows of the embedding that are real tokens
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
    bias: Literal["none", "qkv", "all"]  # which projections have one; a LayerNorm always has, the output head never
    tie_embeddings: bool  # the output head is the token embedding
    rope_theta: float = 10000.0
    rope_scale: float = 1.0  # linear scaling: positions are divided by it
    sliding_window: int | None = None  # a token sees this many latest tokens, itself among them; None: all earlier ones
    bos_id: int | None = None
    eos_id: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1:
                raise ValueError(f"{field.name} must be at least 1, got {value}")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ValueError(f"sliding_window must be at least 1 or absent, got {self.sliding_window}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide into num_kv_heads {self.num_kv_heads} groups")
        if self.position == "rope" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, got {self.head_dim}")

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding as it is held: `vocab_size` rounded up; the rest is never seen or sampled."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def num_params(self) -> int:
        """Parameters of the published model (no padding; a tied head counts once)."""
        d, qkv = self.embed_dim, (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        num_up = 2 if self.mlp == "swiglu" else 1
        norm = d * (2 if self.norm == "layer" else 1)
        kernels = d * qkv + self.num_heads * self.head_dim * d + (num_up + 1) * d * self.mlp_dim
        biases = {"none": 0, "qkv": qkv, "all": qkv + d + num_up * self.mlp_dim + d}[self.bias]
        tables = self.vocab_size * d * (1 if self.tie_embeddings else 2)
        tables += self.max_positions * d if self.position == "learned" else 0
        return tables + self.num_layers * (kernels + biases + 2 * norm) + norm


ARCHS: dict[str, dict[str, Any]] = {
    # StarCoder, StarCoderBase, tiny_starcoder_py, santacoder; the activation differs by checkpoint
    "gpt_bigcode": {"family": "gpt_bigcode", "position": "learned", "norm": "layer", "bias": "all"},
    # StarCoder2; its config says whether there are biases
    "starcoder2": {"family": "starcoder2", "position": "rope", "norm": "layer"},
    # CodeLlama, DeepSeek-Coder, SmolLM2
    "llama": {"family": "llama", "position": "rope", "norm": "rms", "mlp": "swiglu", "bias": "none"},
    # Qwen2.5-Coder
    "qwen2": {"family": "qwen2", "position": "rope", "norm": "rms", "mlp": "swiglu", "bias": "qkv"},
}
