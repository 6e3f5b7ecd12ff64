"""GGUF files of the Llama family: architecture, weights (dequantised with numpy) and tokenizer."""

from typing import Any

import gguf
import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from wizardcoder_jax.arch import ARCHS, ArchConfig
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.hf.tokenizer import Tokenizer

_NAMES = {  # Hugging Face name -> GGUF name (ggml-org/llama.cpp, gguf-py/gguf/tensor_mapping.py)
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
_SPECIAL_TOKEN = 3  # gguf's token type CONTROL
_PRE_TOKENIZERS = {"smollm"}  # llama.cpp's names of the splitting rules that we rebuild


class GgufFile:
    """One GGUF file, as a source of tensors under their Hugging Face names.

    Raises:
        InputError: no GGUF file, or not of the Llama family.
    """

    def __init__(self, path: str) -> None:
        self.place = path
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise InputError(f"{path}: truncated or not a GGUF file ({error})") from error
        if (family := self._field("general.architecture")) != "llama":
            raise InputError(f"{path}: GGUF architecture {family!r} is not supported (only 'llama')")
        self.arch = self._read_arch()
        theirs = {tensor.name: tensor for tensor in self._reader.tensors if tensor.name != "rope_freqs.weight"}
        layers = range(self.arch.num_layers)
        ours = {gguf_name.format(i=i): name.format(i=i) for name, gguf_name in _NAMES.items() for i in layers}
        self._tensors = {ours.get(name, name): tensor for name, tensor in theirs.items()}

    def _field(self, name: str, default: Any = None) -> Any:
        field = self._reader.get_field(name)
        return default if field is None else field.contents()

    def _required(self, name: str) -> Any:
        if (value := self._field(name)) is None:
            raise InputError(f"{self.place}: the key {name} is missing")
        return value

    def _read_arch(self) -> ArchConfig:
        num_heads, embed_dim = self._required("llama.attention.head_count"), self._required("llama.embedding_length")
        return ArchConfig(
            **ARCHS["llama"],
            vocab_size=len(self._required("tokenizer.ggml.tokens")),
            embed_dim=embed_dim,
            num_layers=self._required("llama.block_count"),
            num_heads=num_heads,
            num_kv_heads=self._field("llama.attention.head_count_kv", num_heads),
            head_dim=self._field("llama.attention.key_length", embed_dim // num_heads),
            mlp_dim=self._required("llama.feed_forward_length"),
            max_positions=self._required("llama.context_length"),
            # stored as float32; the shortest decimal that rounds to it is what the model was published with
            norm_eps=float(str(np.float32(self._required("llama.attention.layer_norm_rms_epsilon")))),
            tie_embeddings=all(tensor.name != "output.weight" for tensor in self._reader.tensors),
            rope_theta=self._field("llama.rope.freq_base", 10000.0),
            rope_scale=self._field("llama.rope.scaling.factor", 1.0),
            bos_id=self._field("tokenizer.ggml.bos_token_id"),
            eos_id=self._field("tokenizer.ggml.eos_token_id"),
        )

    def names(self) -> set[str]:
        """See TensorSource."""
        return set(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """See TensorSource."""
        return tuple(int(dim) for dim in reversed(self._tensors[name].shape))

    def read(self, name: str) -> np.ndarray:
        """See TensorSource; float32."""
        tensor = self._tensors[name]
        try:
            array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise InputError(f"{self.place}: {name} is {tensor.tensor_type.name}, which cannot be read") from error
        array = array.reshape(self.shape(name)).astype(np.float32)
        if name.endswith("q_proj.weight"):
            return _unpermute(array, self.arch.num_heads)
        if name.endswith("k_proj.weight"):
            return _unpermute(array, self.arch.num_kv_heads)
        return array

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, rebuilt from the file's metadata.

        Raises:
            InputError: it splits text by rules that we do not rebuild.
        """
        kind, pre = self._field("tokenizer.ggml.model"), self._field("tokenizer.ggml.pre")
        if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
            raise InputError(f"{self.place}: tokenizer {kind!r} with splitting {pre!r} cannot be rebuilt; use a folder")
        tokens = self._required("tokenizer.ggml.tokens")
        merges = [tuple(merge.split(" ")) for merge in self._required("tokenizer.ggml.merges")]
        backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
        splitting = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        backend.pre_tokenizer = pre_tokenizers.Sequence(splitting)
        backend.decoder = decoders.ByteLevel()
        types = self._required("tokenizer.ggml.token_type")
        special = [token for token, kind in zip(tokens, types, strict=True) if kind == _SPECIAL_TOKEN]
        backend.add_special_tokens(special)
        ids = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
        found = {name: self._field(f"tokenizer.ggml.{key}_token_id") for name, key in ids.items()}
        names = {name: tokens[i] for name, i in found.items() if i is not None}
        return Tokenizer(backend, names, self._field("tokenizer.chat_template"))


def _unpermute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Query or key rows [N*H, D] in transformers' rotate-half order; GGUF holds the pairs of each head interleaved."""
    rows, columns = weight.shape
    by_pair = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return by_pair.swapaxes(1, 2).reshape(rows, columns)
