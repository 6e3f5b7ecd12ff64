"""GPTBigCode: StarCoder, StarCoderBase, tiny_starcoder_py, santacoder, WizardCoder-15B."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields
from wizardcoder_jax.models.families.config_keys import GELUS, MAX_LAYERS, default_head_dim, gelu_name, require_layer_type
from wizardcoder_jax.models.families.family import ModelFamily
from wizardcoder_jax.models.families.weight_patterns import (
    POSITION_EMBEDDING,
    TOKEN_EMBEDDING,
    Shape,
    TensorMapping,
    map_layer_norm,
    map_linear,
    map_tensor,
)


def _read_config(fields: ConfigFields) -> dict[str, Any]:
    fields.require("add_cross_attention", False)
    fields.choice("position_embedding_type", table={"absolute": None, "learned_absolute": None}, default="absolute")
    embed_dim, num_heads = fields.count("n_embd", "hidden_size"), fields.count("n_head", "num_attention_heads")
    num_layers = fields.count("n_layer", "num_hidden_layers", maximum=MAX_LAYERS)
    num_kv_heads = 1 if fields.flag("multi_query", True) else num_heads
    if fields.count("num_key_value_heads", default=num_kv_heads) != num_kv_heads:
        raise fields.error("num_key_value_heads and multi_query disagree")
    require_layer_type(fields, num_layers, "full_attention")
    return {
        "embed_dim": embed_dim,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_dim": default_head_dim(fields, embed_dim, num_heads),
        "mlp_dim": fields.count("n_inner", default=4 * embed_dim),
        "max_positions": fields.count("n_positions", "max_position_embeddings"),
        "norm_eps": fields.number("layer_norm_epsilon", 1e-5),
        "mlp": fields.choice("activation_function", table=GELUS, default="gelu_pytorch_tanh"),
        "tie_embeddings": fields.flag("tie_word_embeddings", True),
    }


def _write_config(arch: ArchConfig) -> dict[str, Any]:
    return {
        "n_embd": arch.embed_dim,
        "n_head": arch.num_heads,
        "n_layer": arch.num_layers,
        "n_inner": arch.mlp_dim,
        "n_positions": arch.max_positions,
        "multi_query": arch.num_kv_heads == 1,
        "activation_function": gelu_name(arch),
        "layer_norm_epsilon": arch.norm_eps,
        "scale_attn_weights": True,
        "attention_softmax_in_fp32": True,
        "scale_attention_softmax_in_fp32": True,
    }


@dataclasses.dataclass(frozen=True)
class FusedQkvPattern:
    """The pattern of the weight or bias of c_attn, which combines the query, key and value projections.

    With one kv head, the outputs of c_attn are all query heads, then the key, then the value. With as many kv heads as query
    heads, they are the query, key and value of the first head, then of the second head, and so on.
    """

    def to_ours(self, tensor: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        """See Pattern."""
        num_heads, num_kv_heads, head_dim = shapes[0][-2], shapes[1][-2], shapes[0][-1]
        outputs = tensor.T.reshape(*tensor.T.shape[:-1], -1, head_dim)  # [..., N + 2K, H]
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


def _map_qkv(kind: str, param: str) -> TensorMapping:
    params = tuple(f"blocks.attention.{name}.{param}" for name in ("query", "key", "value"))
    return TensorMapping(f"transformer.h.{{i}}.attn.c_attn.{kind}", params, FusedQkvPattern())


_TENSOR_MAPPINGS = [
    map_tensor("transformer.wte.weight", "tokens", TOKEN_EMBEDDING),
    map_tensor("transformer.wpe.weight", "positions", POSITION_EMBEDDING),
    *map_layer_norm("transformer.h.{i}.ln_1", "blocks.attention_norm"),
    _map_qkv("weight", "kernel"),
    _map_qkv("bias", "bias"),
    *map_linear("transformer.h.{i}.attn.c_proj", "blocks.attention.out", num_in=2),
    *map_layer_norm("transformer.h.{i}.ln_2", "blocks.mlp_norm"),
    *map_linear("transformer.h.{i}.mlp.c_fc", "blocks.mlp.up"),
    *map_linear("transformer.h.{i}.mlp.c_proj", "blocks.mlp.down"),
    *map_layer_norm("transformer.ln_f", "final_norm"),
    map_tensor("lm_head.weight", "head", TOKEN_EMBEDDING),
]


def _published(embed_dim: int, num_layers: int, num_heads: int, activation: str = "gelu", **own: Any) -> dict[str, Any]:
    shape = {"n_embd": embed_dim, "n_layer": num_layers, "n_head": num_heads, "n_positions": 8192}
    ids = {"vocab_size": 49152, "bos_token_id": 0, "eos_token_id": 0}
    return {**shape, **ids, "activation_function": activation, **own}


_SANTACODER = {"n_positions": 2048, "vocab_size": 49280, "bos_token_id": 49152, "eos_token_id": 49152}
_PUBLISHED_CONFIGS = {
    "bigcode/starcoder": _published(6144, 40, 48),
    "bigcode/starcoderbase": _published(6144, 40, 48),
    "bigcode/starcoderbase-7b": _published(4096, 42, 32),
    "bigcode/starcoderbase-3b": _published(2816, 36, 22, "gelu_pytorch_tanh"),
    "bigcode/starcoderbase-1b": _published(2048, 24, 16, "gelu_pytorch_tanh"),
    "bigcode/tiny_starcoder_py": _published(768, 20, 12, "gelu_pytorch_tanh"),
    "bigcode/gpt_bigcode-santacoder": _published(2048, 24, 16, "gelu_pytorch_tanh", **_SANTACODER),
    # The same model under the current and the former name of its organization.
    "WizardLMTeam/WizardCoder-15B-V1.0": _published(6144, 40, 48, vocab_size=49153),
    "WizardLM/WizardCoder-15B-V1.0": _published(6144, 40, 48, vocab_size=49153),
}

FAMILY = ModelFamily(
    model_type="gpt_bigcode",
    transformers_class="GPTBigCodeForCausalLM",
    shared_fields={"position": "learned", "norm": "layer", "bias": "all"},
    read_config=_read_config,
    write_config=_write_config,
    tensor_mappings=_TENSOR_MAPPINGS,
    published_configs=_PUBLISHED_CONFIGS,
)
