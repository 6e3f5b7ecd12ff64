"""The config keys and tensor names that Llama introduced and other families with rotary positions adopted."""

from typing import Any

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields
from wizardcoder_jax.models.families.config_keys import MAX_LAYERS, default_head_dim
from wizardcoder_jax.models.families.weight_patterns import (
    TOKEN_EMBEDDING,
    KernelPattern,
    TensorMapping,
    VectorPattern,
    map_tensor,
)

ROTARY_MAPPINGS: list[TensorMapping] = [
    map_tensor("model.embed_tokens.weight", "tokens", TOKEN_EMBEDDING),
    map_tensor("model.layers.{i}.self_attn.q_proj.weight", "blocks.attention.query.kernel", KernelPattern()),
    map_tensor("model.layers.{i}.self_attn.k_proj.weight", "blocks.attention.key.kernel", KernelPattern()),
    map_tensor("model.layers.{i}.self_attn.v_proj.weight", "blocks.attention.value.kernel", KernelPattern()),
    map_tensor("model.layers.{i}.self_attn.o_proj.weight", "blocks.attention.out.kernel", KernelPattern(num_in=2)),
    map_tensor("lm_head.weight", "head", TOKEN_EMBEDDING),
]
QKV_BIAS_MAPPINGS: list[TensorMapping] = [
    map_tensor("model.layers.{i}.self_attn.q_proj.bias", "blocks.attention.query.bias", VectorPattern()),
    map_tensor("model.layers.{i}.self_attn.k_proj.bias", "blocks.attention.key.bias", VectorPattern()),
    map_tensor("model.layers.{i}.self_attn.v_proj.bias", "blocks.attention.value.bias", VectorPattern()),
]


def read_rotary_config(fields: ConfigFields, *, max_positions: int, tied: bool, multi_head: bool = False) -> dict[str, Any]:
    """Read the fields of ArchConfig that the families with rotary positions share.

    Args:
        fields: the keys of config.json.
        max_positions: the family's default context length.
        tied: the family's default of `tie_word_embeddings`.
        multi_head: whether the number of key/value heads defaults to the number of query heads.
    """
    embed_dim, num_heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    fields.choice("position_embedding_type", table={"rope": None, "rotary": None}, default="rope")
    theta, scale = _read_rope(fields)
    return {
        "embed_dim": embed_dim,
        "num_layers": fields.count("num_hidden_layers", maximum=MAX_LAYERS),
        "num_heads": num_heads,
        "num_kv_heads": fields.count("num_key_value_heads", default=num_heads if multi_head else None),
        "head_dim": fields.optional_count("head_dim") or default_head_dim(fields, embed_dim, num_heads),
        "mlp_dim": fields.count("intermediate_size"),
        "max_positions": fields.count("max_position_embeddings", default=max_positions),
        "tie_embeddings": fields.flag("tie_word_embeddings", tied),
        "rope_theta": theta,
        "rope_scale": scale,
    }


def _read_rope(fields: ConfigFields) -> tuple[float, float]:
    """Read the base and the linear scale of RoPE from `rope_parameters` (transformers 5) or `rope_scaling` (version 4)."""
    theta, found = fields.optional_number("rope_theta"), set[tuple[float, float]]()
    for rope in filter(None, (fields.nested("rope_parameters"), fields.nested("rope_scaling"))):
        linear = rope.choice("rope_type", "type", table={"default": False, "linear": True}, default="default")
        factor, own_theta = rope.optional_number("factor"), rope.optional_number("rope_theta")
        if linear and factor is None:
            raise fields.error("linear rope scaling needs a factor")
        if (factor or 1.0) != 1.0 and not linear:
            raise fields.error(f"the rope factor {factor} is only supported with the type 'linear'")
        if None not in (theta, own_theta) and theta != own_theta:
            raise fields.error(f"the top-level rope_theta={theta} and the nested rope_theta={own_theta} disagree")
        rope.check_unread()
        found.add((own_theta or theta or 10000.0, factor or 1.0))
    if len(found) > 1:
        raise fields.error("rope_parameters and rope_scaling disagree")
    return found.pop() if found else (theta or 10000.0, 1.0)


def write_rotary_config(arch: ArchConfig) -> dict[str, Any]:
    """Return the keys of config.json that the families with rotary positions share."""
    linear = arch.rope_scale != 1.0
    return {
        "hidden_size": arch.embed_dim,
        "num_attention_heads": arch.num_heads,
        "num_key_value_heads": arch.num_kv_heads,
        "num_hidden_layers": arch.num_layers,
        "head_dim": arch.head_dim,
        "intermediate_size": arch.mlp_dim,
        "max_position_embeddings": arch.max_positions,
        "rope_theta": arch.rope_theta,
        "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": arch.rope_scale} if linear else None,
    }


def published_rotary_config(
    embed_dim: int, mlp_dim: int, num_layers: int, heads: tuple[int, int], tokens: tuple[int, int, int], **own: Any
) -> dict[str, Any]:
    """Build the config.json keys of a published model with rotary positions.

    Args:
        embed_dim: hidden size.
        mlp_dim: hidden units of the MLP.
        num_layers: number of blocks.
        heads: numbers of query heads and of key/value heads.
        tokens: vocabulary size, bos id, eos id.
        own: further keys of the model's config.json, which override the others.
    """
    shape = {"hidden_size": embed_dim, "intermediate_size": mlp_dim, "num_hidden_layers": num_layers}
    num_heads = dict(zip(("num_attention_heads", "num_key_value_heads"), heads, strict=True))
    ids = dict(zip(("vocab_size", "bos_token_id", "eos_token_id"), tokens, strict=True))
    return {"max_position_embeddings": 16384, **shape, **num_heads, **ids, **own}
