"""Llama: CodeLlama, WizardCoder-Python, DeepSeek-Coder, SmolLM2."""

from typing import Any

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields
from wizardcoder_jax.models.families.config_keys import SILUS, require_layer_type
from wizardcoder_jax.models.families.family import ModelFamily
from wizardcoder_jax.models.families.rotary import (
    ROTARY_MAPPINGS,
    published_rotary_config,
    read_rotary_config,
    write_rotary_config,
)
from wizardcoder_jax.models.families.weight_patterns import KernelPattern, VectorPattern, map_tensor


def _read_config(fields: ConfigFields) -> dict[str, Any]:
    fields.require("attention_bias", False)
    fields.require("mlp_bias", False)
    rotary = read_rotary_config(fields, max_positions=2048, tied=False, multi_head=True)
    require_layer_type(fields, rotary["num_layers"], "full_attention")
    mlp = fields.choice("hidden_act", table=SILUS, default="silu")
    return rotary | {"norm_eps": fields.number("rms_norm_eps", 1e-6), "mlp": mlp}


def _write_config(arch: ArchConfig) -> dict[str, Any]:
    own = {"hidden_act": "silu", "rms_norm_eps": arch.norm_eps, "attention_bias": False, "mlp_bias": False}
    return write_rotary_config(arch) | own


LLAMA_MAPPINGS = [
    *ROTARY_MAPPINGS,
    map_tensor("model.layers.{i}.input_layernorm.weight", "blocks.attention_norm.scale", VectorPattern()),
    map_tensor("model.layers.{i}.post_attention_layernorm.weight", "blocks.mlp_norm.scale", VectorPattern()),
    map_tensor("model.layers.{i}.mlp.gate_proj.weight", "blocks.mlp.gate.kernel", KernelPattern()),
    map_tensor("model.layers.{i}.mlp.up_proj.weight", "blocks.mlp.up.kernel", KernelPattern()),
    map_tensor("model.layers.{i}.mlp.down_proj.weight", "blocks.mlp.down.kernel", KernelPattern()),
    map_tensor("model.norm.weight", "final_norm.scale", VectorPattern()),
]


def _codellama(size: str, vocab_size: int) -> dict[str, Any]:
    shape = {"7b": (4096, 11008, 32, (32, 32)), "13b": (5120, 13824, 40, (40, 40)), "34b": (8192, 22016, 48, (64, 8))}[size]
    return published_rotary_config(*shape, tokens=(vocab_size, 1, 2), rms_norm_eps=1e-5, rope_theta=1000000)


def _deepseek(size: str, eos_id: int) -> dict[str, Any]:
    shape = {"1.3b": (2048, 5504, 24, (16, 16)), "6.7b": (4096, 11008, 32, (32, 32)), "33b": (7168, 19200, 62, (56, 8))}[size]
    rope = {"rope_theta": 100000, "rope_scaling": {"type": "linear", "factor": 4.0}}
    return published_rotary_config(*shape, tokens=(32256, 32013, eos_id), rms_norm_eps=1e-6, **rope)


def _smollm2(bos_id: int, eos_id: int) -> dict[str, Any]:
    own = {"max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000, "tie_word_embeddings": True}
    return published_rotary_config(576, 1536, 30, (9, 3), tokens=(49152, bos_id, eos_id), **own)


# CodeLlama models that support infilling have 16 more tokens. The 34B model and the Python models do not support it.
_CODELLAMA_VOCAB_SIZES = {"7b": 32016, "13b": 32016, "34b": 32000}

_PUBLISHED_CONFIGS = {
    **{
        f"codellama/CodeLlama-{size}{kind}-hf": _codellama(size, 32000 if kind == "-Python" else vocab_size)
        for size, vocab_size in _CODELLAMA_VOCAB_SIZES.items()
        for kind in ("", "-Python", "-Instruct")
    },
    **{
        f"deepseek-ai/deepseek-coder-{size}-{kind}": _deepseek(size, eos_id)
        for size in ("1.3b", "6.7b", "33b")
        for kind, eos_id in (("base", 32014), ("instruct", 32021))
    },
    **{
        # The same models under the current and the former name of their organization.
        f"{organization}/WizardCoder-Python-{size.upper()}-V1.0": _codellama(size, 32001)
        for organization in ("WizardLMTeam", "WizardLM")
        for size in _CODELLAMA_VOCAB_SIZES
    },
    "HuggingFaceTB/SmolLM2-135M": _smollm2(0, 0),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _smollm2(1, 2),
}

FAMILY = ModelFamily(
    model_type="llama",
    transformers_class="LlamaForCausalLM",
    shared_fields={"position": "rope", "norm": "rms", "mlp": "swiglu", "bias": "none"},
    read_config=_read_config,
    write_config=_write_config,
    tensor_mappings=LLAMA_MAPPINGS,
    published_configs=_PUBLISHED_CONFIGS,
)
