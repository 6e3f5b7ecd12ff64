"""config.json <-> ArchConfig: a reader and a writer a family."""

import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.models.arch import ARCHS, ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields
from wizardcoder_jax.models.families.config_layers import MOST_LAYERS, check_layers, head_dim, qwen2_window, read_rotary

_GELUS: dict[str, Literal["gelu", "gelu_tanh"]] = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",  # the same formula
}
_SILUS: dict[str, Literal["swiglu"]] = {"silu": "swiglu", "swish": "swiglu"}


def read_arch(config: dict[str, Any], place: str) -> ArchConfig:
    """The architecture that a config.json describes; keys that are unknown and change nothing are noted on stderr.

    Args:
        config: the parsed file.
        place: its name, for messages.

    Raises:
        InputError: a family we do not know, a missing key, a value of a wrong kind, or a setting that changes the maths.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in _FAMILIES:
        raise InputError(f"{place}: unknown architecture model_type={family!r}; known: {', '.join(sorted(_FAMILIES))}")
    fields = ConfigFields(config, place)
    fields.only("scale_attn_weights", True)  # GPTBigCode's; some files of other families repeat it
    read = {
        **ARCHS[family],
        **_FAMILIES[family].read(fields),
        "vocab_size": fields.count("vocab_size"),
        "bos_id": fields.token("bos_token_id"),
        "eos_id": fields.token("eos_token_id"),
    }
    if noted := fields.judge_unread():
        more = f" and {len(noted) - 20} more" if len(noted) > 20 else ""
        print(f"note: {place}: unknown keys without effect are passed over: {', '.join(noted[:20])}{more}", file=sys.stderr)
    try:
        return ArchConfig(**read)
    except ValueError as error:
        raise fields.complaint(str(error)) from error


def _read_gpt_bigcode(fields: ConfigFields) -> dict[str, Any]:
    fields.only("add_cross_attention", False)
    fields.choice("position_embedding_type", table={"absolute": None, "learned_absolute": None}, default="absolute")
    d, n = fields.count("n_embd", "hidden_size"), fields.count("n_head", "num_attention_heads")
    num_layers = fields.count("n_layer", "num_hidden_layers", most=MOST_LAYERS)
    num_kv_heads = 1 if fields.flag("multi_query", True) else n
    if fields.count("num_key_value_heads", default=num_kv_heads) != num_kv_heads:
        raise fields.complaint("num_key_value_heads and multi_query disagree")
    check_layers(fields, num_layers, "full_attention")
    return {
        "embed_dim": d,
        "num_layers": num_layers,
        "num_heads": n,
        "num_kv_heads": num_kv_heads,
        "head_dim": head_dim(fields, d, n),
        "mlp_dim": fields.count("n_inner", default=4 * d),
        "max_positions": fields.count("n_positions", "max_position_embeddings"),
        "norm_eps": fields.number("layer_norm_epsilon", 1e-5),
        "mlp": fields.choice("activation_function", table=_GELUS, default="gelu_pytorch_tanh"),
        "tie_embeddings": fields.flag("tie_word_embeddings", True),
    }


def _read_starcoder2(fields: ConfigFields) -> dict[str, Any]:
    fields.only("norm_type", "layer_norm")
    fields.only("mlp_type", "default")
    rotary = read_rotary(fields, max_positions=4096, tied=True)
    window = fields.optional_count("sliding_window")
    check_layers(fields, rotary["num_layers"], "full_attention" if window is None else "sliding_attention")
    return rotary | {
        "norm_eps": fields.number("norm_epsilon", 1e-5),
        "mlp": fields.choice("hidden_act", table=_GELUS, default="gelu_pytorch_tanh"),
        "bias": "all" if fields.flag("use_bias", True) else "none",
        "sliding_window": window,
    }


def _read_llama(fields: ConfigFields) -> dict[str, Any]:
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    rotary = read_rotary(fields, max_positions=2048, tied=False, multi_head=True)
    check_layers(fields, rotary["num_layers"], "full_attention")
    mlp = fields.choice("hidden_act", table=_SILUS, default="silu")
    return rotary | {"norm_eps": fields.number("rms_norm_eps", 1e-6), "mlp": mlp}


def _read_qwen2(fields: ConfigFields) -> dict[str, Any]:
    rotary = read_rotary(fields, max_positions=32768, tied=False)
    mlp = fields.choice("hidden_act", table=_SILUS, default="silu")
    own = {"norm_eps": fields.number("rms_norm_eps", 1e-6), "mlp": mlp}
    return rotary | own | {"sliding_window": qwen2_window(fields, rotary["num_layers"])}


def write_config(arch: ArchConfig, dtype: str) -> dict[str, Any]:
    """The config.json of `arch` with weights of `dtype`, for transformers 4 and 5."""
    family = _FAMILIES[arch.family]
    common = {
        "architectures": [family.architecture],
        "model_type": arch.family,
        "vocab_size": arch.vocab_size,
        "tie_word_embeddings": arch.tie_embeddings,
        "bos_token_id": arch.bos_id,
        "eos_token_id": arch.eos_id,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
    }
    return common | family.write(arch)


def _write_gpt_bigcode(arch: ArchConfig) -> dict[str, Any]:
    return {
        "n_embd": arch.embed_dim,
        "n_head": arch.num_heads,
        "n_layer": arch.num_layers,
        "n_inner": arch.mlp_dim,
        "n_positions": arch.max_positions,
        "multi_query": arch.num_kv_heads == 1,
        "activation_function": _gelu_name(arch),
        "layer_norm_epsilon": arch.norm_eps,
        "scale_attn_weights": True,
        "attention_softmax_in_fp32": True,
        "scale_attention_softmax_in_fp32": True,
    }


def _write_starcoder2(arch: ArchConfig) -> dict[str, Any]:
    return _write_rotary(arch) | {
        "hidden_act": _gelu_name(arch),
        "norm_epsilon": arch.norm_eps,
        "use_bias": arch.bias == "all",
        "sliding_window": arch.sliding_window,
    }


def _write_llama(arch: ArchConfig) -> dict[str, Any]:
    own = {"hidden_act": "silu", "rms_norm_eps": arch.norm_eps, "attention_bias": False, "mlp_bias": False}
    return _write_rotary(arch) | own


def _write_qwen2(arch: ArchConfig) -> dict[str, Any]:
    return _write_rotary(arch) | {
        "hidden_act": "silu",
        "rms_norm_eps": arch.norm_eps,
        "use_sliding_window": arch.sliding_window is not None,
        "sliding_window": arch.sliding_window,
        "max_window_layers": arch.num_layers if arch.sliding_window is None else 0,
    }


def _write_rotary(arch: ArchConfig) -> dict[str, Any]:
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


def _gelu_name(arch: ArchConfig) -> str:
    return next(theirs for theirs, ours in _GELUS.items() if ours == arch.mlp)


class _Family(NamedTuple):
    read: Callable[[ConfigFields], dict[str, Any]]
    write: Callable[[ArchConfig], dict[str, Any]]
    architecture: str  # transformers' class


_FAMILIES = {
    "gpt_bigcode": _Family(_read_gpt_bigcode, _write_gpt_bigcode, "GPTBigCodeForCausalLM"),
    "starcoder2": _Family(_read_starcoder2, _write_starcoder2, "Starcoder2ForCausalLM"),
    "llama": _Family(_read_llama, _write_llama, "LlamaForCausalLM"),
    "qwen2": _Family(_read_qwen2, _write_qwen2, "Qwen2ForCausalLM"),
}
