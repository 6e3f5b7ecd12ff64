"""StarCoder2."""

from typing import Any

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields
from wizardcoder_jax.models.families.config_keys import GELUS, gelu_name, require_layer_type
from wizardcoder_jax.models.families.family import ModelFamily
from wizardcoder_jax.models.families.rotary import (
    QKV_BIAS_MAPPINGS,
    ROTARY_MAPPINGS,
    published_rotary_config,
    read_rotary_config,
    write_rotary_config,
)
from wizardcoder_jax.models.families.weight_patterns import VectorPattern, map_layer_norm, map_linear, map_tensor


def _read_config(fields: ConfigFields) -> dict[str, Any]:
    fields.require("norm_type", "layer_norm")
    fields.require("mlp_type", "default")
    rotary = read_rotary_config(fields, max_positions=4096, tied=True)
    window = fields.optional_count("sliding_window")
    require_layer_type(fields, rotary["num_layers"], "full_attention" if window is None else "sliding_attention")
    return rotary | {
        "norm_eps": fields.number("norm_epsilon", 1e-5),
        "mlp": fields.choice("hidden_act", table=GELUS, default="gelu_pytorch_tanh"),
        "bias": "all" if fields.flag("use_bias", True) else "none",
        "sliding_window": window,
    }


def _write_config(arch: ArchConfig) -> dict[str, Any]:
    return write_rotary_config(arch) | {
        "hidden_act": gelu_name(arch),
        "norm_epsilon": arch.norm_eps,
        "use_bias": arch.bias == "all",
        "sliding_window": arch.sliding_window,
    }


_TENSOR_MAPPINGS = [
    *ROTARY_MAPPINGS,
    *QKV_BIAS_MAPPINGS,
    map_tensor("model.layers.{i}.self_attn.o_proj.bias", "blocks.attention.out.bias", VectorPattern()),
    *map_layer_norm("model.layers.{i}.input_layernorm", "blocks.attention_norm"),
    *map_layer_norm("model.layers.{i}.post_attention_layernorm", "blocks.mlp_norm"),
    *map_linear("model.layers.{i}.mlp.c_fc", "blocks.mlp.up"),
    *map_linear("model.layers.{i}.mlp.c_proj", "blocks.mlp.down"),
    *map_layer_norm("model.norm", "final_norm"),
]

_SHARED: dict[str, Any] = {"tokens": (49152, 0, 0), "sliding_window": 4096}
_PUBLISHED_CONFIGS = {
    "bigcode/starcoder2-3b": published_rotary_config(3072, 12288, 30, (24, 2), rope_theta=999999.4420358813, **_SHARED),
    "bigcode/starcoder2-7b": published_rotary_config(4608, 18432, 32, (36, 4), rope_theta=1000000, **_SHARED),
    "bigcode/starcoder2-15b": published_rotary_config(
        6144, 24576, 40, (48, 4), rope_theta=100000, tie_word_embeddings=False, **_SHARED
    ),
}

FAMILY = ModelFamily(
    model_type="starcoder2",
    transformers_class="Starcoder2ForCausalLM",
    shared_fields={"position": "rope", "norm": "layer"},
    read_config=_read_config,
    write_config=_write_config,
    tensor_mappings=_TENSOR_MAPPINGS,
    published_configs=_PUBLISHED_CONFIGS,
)
