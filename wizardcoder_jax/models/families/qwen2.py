"""Qwen2: Qwen2.5-Coder."""

from typing import Any

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields
from wizardcoder_jax.models.families.config_keys import SILUS, read_layer_types
from wizardcoder_jax.models.families.family import ModelFamily
from wizardcoder_jax.models.families.llama import LLAMA_MAPPINGS
from wizardcoder_jax.models.families.rotary import QKV_BIAS_MAPPINGS, read_rotary_config, write_rotary_config


def _read_config(fields: ConfigFields) -> dict[str, Any]:
    rotary = read_rotary_config(fields, max_positions=32768, tied=False)
    mlp = fields.choice("hidden_act", table=SILUS, default="silu")
    own = {"norm_eps": fields.number("rms_norm_eps", 1e-6), "mlp": mlp}
    return rotary | own | {"sliding_window": _read_window(fields, rotary["num_layers"])}


def _read_window(fields: ConfigFields, num_layers: int) -> int | None:
    """Return the sliding window of all layers, or None. Most config files set a window but disable it."""
    is_used = fields.flag("use_sliding_window", False)
    num_full = fields.count("max_window_layers", default=28, minimum=0)
    fields.optional_count("sliding_window")
    listed = read_layer_types(fields, num_layers)
    kinds = listed or {"sliding_attention" if is_used and i >= num_full else "full_attention" for i in range(num_layers)}
    if kinds == {"full_attention"}:
        return None
    if not is_used or kinds != {"sliding_attention"}:
        key = "layer_types" if listed else "max_window_layers"
        requested = f"{' and '.join(sorted(kinds))} with use_sliding_window={is_used}"
        raise fields.error(f"{key} asks for {requested}, which is not supported (all layers must use the same kind)")
    return fields.count("sliding_window")


def _write_config(arch: ArchConfig) -> dict[str, Any]:
    return write_rotary_config(arch) | {
        "hidden_act": "silu",
        "rms_norm_eps": arch.norm_eps,
        "use_sliding_window": arch.sliding_window is not None,
        "sliding_window": arch.sliding_window,
        "max_window_layers": arch.num_layers if arch.sliding_window is None else 0,
    }


FAMILY = ModelFamily(
    model_type="qwen2",
    transformers_class="Qwen2ForCausalLM",
    shared_fields={"position": "rope", "norm": "rms", "mlp": "swiglu", "bias": "qkv"},
    read_config=_read_config,
    write_config=_write_config,
    tensor_mappings=[*LLAMA_MAPPINGS, *QKV_BIAS_MAPPINGS],
)
