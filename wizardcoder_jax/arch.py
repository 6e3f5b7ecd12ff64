"""What a model is: every choice of architecture, enumerated, and the families that combine them."""

import dataclasses
from typing import Any, Literal

VOCAB_MULTIPLE = 128  # embedding tables are padded to it: a lane width of the TPU, and divisible by any usual mesh axis


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchConfig:
    """One decoder-only Transformer, up to its weights."""

    family: Literal["gpt_bigcode", "llama"]
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
    use_bias: bool  # on every projection and norm; never on the output head
    tie_embeddings: bool  # the output head is the token embedding
    rope_theta: float = 10000.0
    rope_scale: float = 1.0  # linear scaling: positions are divided by it
    bos_id: int | None = None
    eos_id: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1:
                raise ValueError(f"{field.name} must be at least 1, got {value}")
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
        biases = qkv + d + num_up * self.mlp_dim + d if self.use_bias else 0
        tables = self.vocab_size * d * (1 if self.tie_embeddings else 2)
        tables += self.max_positions * d if self.position == "learned" else 0
        return tables + self.num_layers * (kernels + biases + 2 * norm) + norm


ARCHS: dict[str, dict[str, Any]] = {
    # StarCoder, StarCoderBase, tiny_starcoder_py, santacoder; the activation differs by checkpoint
    "gpt_bigcode": {"family": "gpt_bigcode", "position": "learned", "norm": "layer", "use_bias": True},
    # CodeLlama, DeepSeek-Coder, SmolLM2
    "llama": {"family": "llama", "position": "rope", "norm": "rms", "mlp": "swiglu", "use_bias": False},
}
