"""config.json <-> ArchConfig."""

from typing import Any, Literal

from wizardcoder_jax.arch import ARCHS, ArchConfig
from wizardcoder_jax.errors import InputError

_ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh"]] = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
_ARCHITECTURES = {"gpt_bigcode": "GPTBigCodeForCausalLM", "llama": "LlamaForCausalLM"}


def read_arch(config: dict[str, Any], place: str) -> ArchConfig:
    """The architecture that a config.json describes.

    Args:
        config: the parsed file.
        place: its name, for messages.

    Raises:
        InputError: a family we do not know, a missing key, or a setting that would change the maths.
    """
    readers = {"gpt_bigcode": _read_gpt_bigcode, "llama": _read_llama}
    family = config.get("model_type")
    if not isinstance(family, str) or family not in readers:
        raise InputError(f"{place}: unknown architecture model_type={family!r}; known: {', '.join(sorted(readers))}")
    try:
        return readers[family](config, place)
    except KeyError as error:
        raise InputError(f"{place}: the key {error} is missing") from error
    except InputError:
        raise
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:  # a value of the wrong kind
        raise InputError(f"{place}: {error}") from error


def _refuse(place: str, config: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise InputError(f"{place}: {key}={config[key]!r} changes the maths and is not supported (only {value!r})")


def _first_id(value: int | list[int] | None) -> int | None:
    return value[0] if isinstance(value, list) else value


def _read_gpt_bigcode(config: dict[str, Any], place: str) -> ArchConfig:
    _refuse(place, config, {"scale_attn_weights": True, "add_cross_attention": False})
    d, n = config["n_embd"], config["n_head"]
    activation = config.get("activation_function", "gelu_pytorch_tanh")
    if activation not in _ACTIVATIONS:
        raise InputError(f"{place}: activation_function={activation!r} is not one of {', '.join(_ACTIVATIONS)}")
    return ArchConfig(
        **ARCHS["gpt_bigcode"],
        vocab_size=config["vocab_size"],
        embed_dim=d,
        num_layers=config["n_layer"],
        num_heads=n,
        num_kv_heads=1 if config.get("multi_query", True) else n,
        head_dim=_divided(d, n),
        mlp_dim=config.get("n_inner") or 4 * d,
        max_positions=config["n_positions"],
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        mlp=_ACTIVATIONS[activation],
        tie_embeddings=config.get("tie_word_embeddings", True),
        bos_id=config.get("bos_token_id"),
        eos_id=_first_id(config.get("eos_token_id")),
    )


def _read_llama(config: dict[str, Any], place: str) -> ArchConfig:
    _refuse(place, config, {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False})
    d, n = config["hidden_size"], config["num_attention_heads"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear"):
        raise InputError(f"{place}: rope scaling {kind!r} changes the maths and is not supported (only 'linear')")
    return ArchConfig(
        **ARCHS["llama"],
        vocab_size=config["vocab_size"],
        embed_dim=d,
        num_layers=config["num_hidden_layers"],
        num_heads=n,
        num_kv_heads=config.get("num_key_value_heads") or n,
        head_dim=config.get("head_dim") or _divided(d, n),
        mlp_dim=config["intermediate_size"],
        max_positions=config.get("max_position_embeddings", 2048),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        tie_embeddings=config.get("tie_word_embeddings", False),
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
        rope_scale=float(rope.get("factor", 1.0)) if kind == "linear" else 1.0,
        bos_id=config.get("bos_token_id"),
        eos_id=_first_id(config.get("eos_token_id")),
    )


def _divided(embed_dim: int, num_heads: int) -> int:
    if embed_dim % num_heads:
        raise ValueError(f"embedding of {embed_dim} does not divide into {num_heads} heads")
    return embed_dim // num_heads


def write_config(arch: ArchConfig, dtype: str) -> dict[str, Any]:
    """The config.json of `arch` with weights of `dtype`, for transformers 4 and 5."""
    common = {
        "architectures": [_ARCHITECTURES[arch.family]],
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
    return {**common, **(_write_gpt_bigcode(arch) if arch.family == "gpt_bigcode" else _write_llama(arch))}


def _write_gpt_bigcode(arch: ArchConfig) -> dict[str, Any]:
    return {
        "n_embd": arch.embed_dim,
        "n_head": arch.num_heads,
        "n_layer": arch.num_layers,
        "n_inner": arch.mlp_dim,
        "n_positions": arch.max_positions,
        "multi_query": arch.num_kv_heads == 1,
        "activation_function": {ours: theirs for theirs, ours in _ACTIVATIONS.items()}[arch.mlp],
        "layer_norm_epsilon": arch.norm_eps,
        "scale_attn_weights": True,
        "attention_softmax_in_fp32": True,
        "scale_attention_softmax_in_fp32": True,
    }


def _write_llama(arch: ArchConfig) -> dict[str, Any]:
    linear = arch.rope_scale != 1.0
    return {
        "hidden_size": arch.embed_dim,
        "num_attention_heads": arch.num_heads,
        "num_key_value_heads": arch.num_kv_heads,
        "num_hidden_layers": arch.num_layers,
        "head_dim": arch.head_dim,
        "intermediate_size": arch.mlp_dim,
        "max_position_embeddings": arch.max_positions,
        "hidden_act": "silu",
        "rms_norm_eps": arch.norm_eps,
        "rope_theta": arch.rope_theta,
        "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": arch.rope_scale} if linear else None,
        "attention_bias": False,
        "mlp_bias": False,
    }
