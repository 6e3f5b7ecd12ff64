"""Writes tiny Llama models as GGUF files, with every tensor type that we can read."""

import json

import gguf
import numpy as np

from tests.helpers import tiny_models

Kind = gguf.GGMLQuantizationType
# Types that the gguf package can write.
QUANTIZABLE = [
    Kind.F32,
    Kind.F16,
    Kind.BF16,
    Kind.Q4_0,
    Kind.Q4_1,
    Kind.Q5_0,
    Kind.Q5_1,
    Kind.Q8_0,
]  # types that the gguf package can write
BLOCKS = {  # type -> offsets of the float16 numbers in a block, with a magnitude; source: ggml-common.h of ggml-org/llama.cpp
    Kind.Q2_K: {80: 1e-3, 82: 1e-3},
    Kind.Q3_K: {108: 1e-4},
    Kind.Q4_K: {0: 1e-4, 2: 7e-4},
    Kind.Q5_K: {0: 5e-5, 2: 7e-4},
    Kind.Q6_K: {208: 5e-5},
    Kind.IQ4_NL: {0: 1e-3},
    Kind.IQ4_XS: {0: 5e-5},
}
EMBED, MLP, LAYERS, HEADS, CONTEXT = 256, 512, 2, 4, 64


def tokenizer_metadata():
    """Return the keys of a byte-level BPE with an end-of-text token and a fill-in-the-middle token."""
    model = json.loads(tiny_models.train_tokenizer().to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    special = {tiny_models.EOS, tiny_models.FIM}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": tokens.index(tiny_models.EOS),
        "tokenizer.ggml.eos_token_id": tokens.index(tiny_models.EOS),
    }


def model_metadata(num_kv_heads=2):
    """Return the keys of the architecture."""
    return {
        "general.type": "model",
        "general.quantization_version": 2,
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": EMBED,
        "llama.feed_forward_length": MLP,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": num_kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 20000.0,
        "llama.rope.dimension_count": EMBED // HEADS,
    }


def quantize(array, kind):
    """Return `array` as bytes of `kind`; for types that the gguf package cannot write, random blocks of its shape."""
    if kind in BLOCKS:
        draw = np.random.default_rng(array.size)
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = draw.integers(0, 256, (array.size // block_size, block_bytes), np.uint8)
        for offset, size in BLOCKS[kind].items():
            numbers = (size * draw.uniform(0.5, 1, len(blocks))).astype(np.float16)
            blocks[:, offset : offset + 2] = numbers[:, None].view(np.uint8)
        return blocks.reshape(*array.shape[:-1], -1)
    return gguf.quants.quantize(array, kind)


def weights(vocab_size, num_kv_heads=2, tied=True):
    """Return random tensors under their GGUF names, with query and key rows in the order of GGUF."""
    draw = np.random.default_rng(0)
    kv = EMBED // HEADS * num_kv_heads
    shapes = {"token_embd": (vocab_size, EMBED), **({} if tied else {"output": (vocab_size, EMBED)})}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.{name}": (EMBED, EMBED) for name in ("attn_q", "attn_output")}
        shapes |= {f"blk.{i}.{name}": (kv, EMBED) for name in ("attn_k", "attn_v")}
        shapes |= {f"blk.{i}.ffn_gate": (MLP, EMBED), f"blk.{i}.ffn_up": (MLP, EMBED), f"blk.{i}.ffn_down": (EMBED, MLP)}
    norms = ["output_norm", *(f"blk.{i}.{name}" for i in range(LAYERS) for name in ("attn_norm", "ffn_norm"))]
    found = {f"{name}.weight": 0.06 * draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return found | {f"{name}.weight": draw.uniform(0.5, 1.5, EMBED).astype(np.float32) for name in norms}


def write(path, metadata, tensors, kind=Kind.F32, endianess=gguf.GGUFEndian.LITTLE):
    """Write a file with matrices of type `kind` and float32 vectors; keys with the value None are left out."""
    writer = gguf.GGUFWriter(str(path), metadata.get("general.architecture", "llama"), endianess=endianess)
    for key, value in metadata.items():
        if value is not None and key != "general.architecture":
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    for name, array in tensors.items():
        if array.dtype != np.float32 or array.ndim == 1 or kind == Kind.F32:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_model(path, kind=Kind.F32, num_kv_heads=2, tied=True, **changes):
    """Write a complete tiny model; `changes` override its metadata, with "__" instead of "."."""
    metadata = model_metadata(num_kv_heads) | tokenizer_metadata()
    metadata |= {key.replace("__", "."): value for key, value in changes.items()}
    return write(path, metadata, weights(len(metadata["tokenizer.ggml.tokens"] or []) or 8, num_kv_heads, tied), kind)
