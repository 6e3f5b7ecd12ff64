"""GGUF files of the Llama family: architecture, weights and tokenizer.

Keys and tensor names are those of ggml-org/llama.cpp (gguf-py/gguf/constants.py and tensor_mapping.py, src/llama-arch.cpp;
as in llama-cpp-python 0.3.36). Missing keys get the same defaults as in llama.cpp.
"""

import logging
from typing import Any

import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.hf.gguf_reader import GgufReader
from wizardcoder_jax.hf.gguf_tokenizer import build_tokenizer, read_vocabulary
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields
from wizardcoder_jax.models.families.registry import FAMILIES

logger = logging.getLogger(__name__)

_GGUF_NAMES = {  # Hugging Face name -> GGUF name
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "model.layers.{i}.input_layernorm.weight": "blk.{i}.attn_norm.weight",
    "model.layers.{i}.post_attention_layernorm.weight": "blk.{i}.ffn_norm.weight",
    "model.layers.{i}.self_attn.q_proj.weight": "blk.{i}.attn_q.weight",
    "model.layers.{i}.self_attn.k_proj.weight": "blk.{i}.attn_k.weight",
    "model.layers.{i}.self_attn.v_proj.weight": "blk.{i}.attn_v.weight",
    "model.layers.{i}.self_attn.o_proj.weight": "blk.{i}.attn_output.weight",
    "model.layers.{i}.mlp.gate_proj.weight": "blk.{i}.ffn_gate.weight",
    "model.layers.{i}.mlp.up_proj.weight": "blk.{i}.ffn_up.weight",
    "model.layers.{i}.mlp.down_proj.weight": "blk.{i}.ffn_down.weight",
}
_MAX_LAYERS = 4096
_ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


class GgufFile:
    """A GGUF file as a TensorSource, with the tensors under their Hugging Face names.

    Raises:
        InputError: the file is not a GGUF file, is truncated, contains a model of another family than Llama, or has settings
            that change the model's computation in a way that we do not support.
    """

    def __init__(self, path: str) -> None:
        self.location = path
        self._reader = GgufReader(path)
        metadata = self._reader.metadata
        if (kind := metadata.get("general.type", "model")) != "model":
            raise InputError(f"{path}: the file is not a model (general.type={kind!r:.40})")
        if (family := metadata.get("general.architecture")) != "llama":
            raise InputError(f"{path}: GGUF architecture {family!r:.40} is not supported (only 'llama')")
        self._vocabulary = read_vocabulary(metadata, path)
        self.arch = self._read_arch(ConfigFields(_settings(metadata), path))
        layers = range(self.arch.num_layers)
        hf_names = {gguf_name.format(i=i): name.format(i=i) for name, gguf_name in _GGUF_NAMES.items() for i in layers}
        self._gguf_names = {hf_names.get(name, name): name for name in self._reader.tensors}

    def _read_arch(self, fields: ConfigFields) -> ArchConfig:
        embed_dim, num_heads = fields.count("llama.embedding_length"), fields.count("llama.attention.head_count")
        head_dim = fields.optional_count("llama.attention.key_length") or embed_dim // num_heads
        if head_dim == embed_dim // num_heads and embed_dim % num_heads:
            raise fields.error(f"the embedding size {embed_dim} is not a multiple of the number of heads {num_heads}")
        for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
            if (dim := fields.count(key, default=head_dim)) != head_dim:
                raise fields.error(f"{key}={dim} differs from the head size {head_dim}, which is not supported")
        read: dict[str, Any] = {
            "vocab_size": len(self._vocabulary.tokens),
            "embed_dim": embed_dim,
            "num_layers": fields.count("llama.block_count", maximum=_MAX_LAYERS),
            "num_heads": num_heads,
            "num_kv_heads": fields.count("llama.attention.head_count_kv", default=num_heads),
            "head_dim": head_dim,
            "mlp_dim": fields.count("llama.feed_forward_length"),
            "max_positions": fields.count("llama.context_length"),
            "norm_eps": _number(fields, "llama.attention.layer_norm_rms_epsilon"),
            "tie_embeddings": "output.weight" not in self._reader.tensors,
            "rope_theta": _number(fields, "llama.rope.freq_base", 10000.0),
            "rope_scale": self._read_rope_scale(fields),
            "bos_id": self._vocabulary.ids.get("bos_token"),
            "eos_id": self._vocabulary.ids.get("eos_token"),
        }
        _check_unread(fields, self.location)
        try:
            return ArchConfig(**FAMILIES["llama"].arch_fields, **read)
        except ValueError as error:
            raise fields.error(str(error)) from error

    def _read_rope_scale(self, fields: ConfigFields) -> float:
        """Read the number by which positions are divided. A factor without a type of scaling means linear scaling."""
        is_scaled = fields.choice("llama.rope.scaling.type", table={"none": False, "linear": True}, default="linear")
        factor = _number(fields, "llama.rope.scale_linear", 1.0)  # the old name of scaling.factor
        factor = _number(fields, "llama.rope.scaling.factor", factor)
        fields.require("llama.rope.scaling.attn_factor", 1.0)
        for key in ("original_context_length", "finetuned"):  # used only by other types of scaling
            fields.value(f"llama.rope.scaling.{key}")
        for name in _ROPE_FACTORS:
            if name in self._reader.tensors:
                raise fields.error(f"{name} scales each rotary frequency separately (as in Llama 3.1), which is not supported")
        return factor if is_scaled else 1.0

    def names(self) -> list[str]:
        """See TensorSource."""
        return list(self._gguf_names)

    def shape(self, name: str) -> tuple[int, ...]:
        """See TensorSource."""
        return self._reader.tensors[self._gguf_names[name]].shape

    def dtype(self, name: str) -> np.dtype:
        """Return float32, because `read` dequantizes tensors of every type to it."""
        return np.dtype(np.float32)

    def read(self, name: str) -> np.ndarray:
        """See TensorSource."""
        array = self._reader.read(self._gguf_names[name])
        if name.endswith("q_proj.weight"):
            return _unpermute(array, self.arch.num_heads)
        if name.endswith("k_proj.weight"):
            return _unpermute(array, self.arch.num_kv_heads)
        return array

    def tokenizer(self) -> Tokenizer:
        """Rebuild the tokenizer from the file's metadata."""
        return build_tokenizer(self._vocabulary, self.location)


def _settings(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata keys llama.*, replacing lists that have the same number for every layer by that number."""
    settings = {key: value for key, value in metadata.items() if key.startswith("llama.")}
    uniform = {key: value[0] for key, value in settings.items() if isinstance(value, list) and len(set(value)) == 1}
    return {**settings, **uniform}


def _number(fields: ConfigFields, key: str, default: float | None = None) -> float:
    """Read a number above 0. GGUF stores the nearest float32; return the shortest decimal, as in the published config."""
    found = fields.value(key)
    value: Any = default if found is None else found
    if value is None:
        raise fields.error(f"the key {key!r} is missing")
    if type(value) not in (int, float) or not 0 < value < np.finfo(np.float32).max:  # NaN fails too
        raise fields.error(f"{key}={value!r:.40} must be a finite number above 0")
    return float(str(np.float32(value)))


def _check_unread(fields: ConfigFields, location: str) -> None:
    """Reject unread settings that change the architecture, and log the other unread settings."""
    fields.require("llama.attention.causal", True)
    fields.value("llama.vocab_size")  # not needed: the import compares the embedding's shape with the list of tokens
    if ignored := fields.check_unread():
        logger.info("%s: ignored unknown keys that do not affect the model: %s", location, ", ".join(sorted(ignored)))


def _unpermute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Reorder query or key rows [N*H, D] from GGUF, where rotary pairs are interleaved, to transformers' rotate-half order."""
    rows, columns = weight.shape
    by_pair = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return by_pair.swapaxes(1, 2).reshape(rows, columns)
