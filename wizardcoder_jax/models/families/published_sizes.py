"""What config.json says of published models, by hub id: a plan of one needs neither the hub nor its weights.

The keys that the reader of a family takes, only where they differ from the family's defaults. Sources: the models'
config.json on huggingface.co.
"""

from typing import Any

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_json import read_arch

_Config = dict[str, Any]
_WIZARDS = ("WizardLMTeam", "WizardLM")  # one set of models, under the name that it moved to and its first one


def _starcoder(embed_dim: int, num_layers: int, num_heads: int, activation: str = "gelu", **own: Any) -> _Config:
    shape = {"n_embd": embed_dim, "n_layer": num_layers, "n_head": num_heads, "n_positions": 8192}
    ids = {"vocab_size": 49152, "bos_token_id": 0, "eos_token_id": 0}
    return {"model_type": "gpt_bigcode", **shape, **ids, "activation_function": activation, **own}


def _rotary(
    family: str, embed_dim: int, mlp_dim: int, num_layers: int, heads: tuple[int, int], tokens: tuple[int, int, int], **own: Any
) -> _Config:
    """A model with rotary positions; `heads` are (query, key/value), `tokens` (vocabulary, bos, eos)."""
    shape = {"hidden_size": embed_dim, "intermediate_size": mlp_dim, "num_hidden_layers": num_layers}
    num_heads = dict(zip(("num_attention_heads", "num_key_value_heads"), heads, strict=True))
    ids = dict(zip(("vocab_size", "bos_token_id", "eos_token_id"), tokens, strict=True))
    return {"model_type": family, "max_position_embeddings": 16384, **shape, **num_heads, **ids, **own}


_SANTACODER: _Config = {"n_positions": 2048, "vocab_size": 49280, "bos_token_id": 49152, "eos_token_id": 49152}
_STARCODERS = {
    "starcoder": _starcoder(6144, 40, 48),
    "starcoderbase": _starcoder(6144, 40, 48),
    "starcoderbase-7b": _starcoder(4096, 42, 32),
    "starcoderbase-3b": _starcoder(2816, 36, 22, "gelu_pytorch_tanh"),
    "starcoderbase-1b": _starcoder(2048, 24, 16, "gelu_pytorch_tanh"),
    "tiny_starcoder_py": _starcoder(768, 20, 12, "gelu_pytorch_tanh"),
    "gpt_bigcode-santacoder": _starcoder(2048, 24, 16, "gelu_pytorch_tanh", **_SANTACODER),
}

_STARCODER2: _Config = {"tokens": (49152, 0, 0), "sliding_window": 4096}
_STARCODER2S = {
    "starcoder2-3b": _rotary("starcoder2", 3072, 12288, 30, (24, 2), rope_theta=999999.4420358813, **_STARCODER2),
    "starcoder2-7b": _rotary("starcoder2", 4608, 18432, 32, (36, 4), rope_theta=1000000, **_STARCODER2),
    "starcoder2-15b": _rotary(
        "starcoder2", 6144, 24576, 40, (48, 4), rope_theta=100000, tie_word_embeddings=False, **_STARCODER2
    ),
}


def _codellama(size: str, vocab_size: int) -> _Config:
    shape = {"7b": (4096, 11008, 32, (32, 32)), "13b": (5120, 13824, 40, (40, 40)), "34b": (8192, 22016, 48, (64, 8))}[size]
    return _rotary("llama", *shape, tokens=(vocab_size, 1, 2), rms_norm_eps=1e-5, rope_theta=1000000)


def _deepseek(size: str, eos_id: int) -> _Config:
    shape = {"1.3b": (2048, 5504, 24, (16, 16)), "6.7b": (4096, 11008, 32, (32, 32)), "33b": (7168, 19200, 62, (56, 8))}[size]
    rope = {"rope_theta": 100000, "rope_scaling": {"type": "linear", "factor": 4.0}}
    return _rotary("llama", *shape, tokens=(32256, 32013, eos_id), rms_norm_eps=1e-6, **rope)


def _smollm2(bos_id: int, eos_id: int) -> _Config:
    own = {"max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000, "tie_word_embeddings": True}
    return _rotary("llama", 576, 1536, 30, (9, 3), tokens=(49152, bos_id, eos_id), **own)


# Those that fill in between have 16 tokens more; the largest does not, nor do those for Python.
_INFILLING = {"7b": 32016, "13b": 32016, "34b": 32000}

PUBLISHED: dict[str, _Config] = {  # hub id -> keys of its config.json
    **{f"bigcode/{name}": config for name, config in (_STARCODERS | _STARCODER2S).items()},
    **{
        f"codellama/CodeLlama-{size}{kind}-hf": _codellama(size, 32000 if kind == "-Python" else num_tokens)
        for size, num_tokens in _INFILLING.items()
        for kind in ("", "-Python", "-Instruct")
    },
    **{
        f"deepseek-ai/deepseek-coder-{size}-{kind}": _deepseek(size, eos_id)
        for size in ("1.3b", "6.7b", "33b")
        for kind, eos_id in (("base", 32014), ("instruct", 32021))
    },
    **{f"{wizards}/WizardCoder-15B-V1.0": _starcoder(6144, 40, 48, vocab_size=49153) for wizards in _WIZARDS},
    **{
        f"{wizards}/WizardCoder-Python-{size.upper()}-V1.0": _codellama(size, 32001)
        for wizards in _WIZARDS
        for size in _INFILLING
    },
    "HuggingFaceTB/SmolLM2-135M": _smollm2(0, 0),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _smollm2(1, 2),
}


def published_arch(hub_id: str) -> ArchConfig | None:
    """The architecture of a published model; None where the table does not have it.

    Args:
        hub_id: e.g. "bigcode/starcoder".
    """
    config = PUBLISHED.get(hub_id)
    return None if config is None else read_arch(config, hub_id)
