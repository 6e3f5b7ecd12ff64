"""Tiny random models of transformers, as Hugging Face folders with a tokenizer, and training data for them."""

import functools
import json
from pathlib import Path

import jax.numpy as jnp
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import (
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

from wizardcoder_jax.core.instruction_template import wizardcoder_prompt
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf.model_source import ModelSource

EOS = "<|endoftext|>"
FIM = "<fim_prefix>"


def gpt_bigcode(**changes):
    """Return a GPTBigCode model with a few thousand parameters; `changes` override its config."""
    sizes = {"vocab_size": 384, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 256, "n_inner": 80}
    special = {"bos_token_id": 0, "eos_token_id": 0}
    return _with_random_weights(GPTBigCodeForCausalLM, GPTBigCodeConfig(**{**sizes, **special, **changes}))


def starcoder2(**changes):
    """Return a StarCoder2 model with a few thousand parameters; `changes` override its config."""
    return _rotary(Starcoder2ForCausalLM, Starcoder2Config, changes)


def llama(**changes):
    """Return a Llama model with a few thousand parameters; `changes` override its config."""
    return _rotary(LlamaForCausalLM, LlamaConfig, changes)


def qwen2(**changes):
    """Return a Qwen2 model with a few thousand parameters; `changes` override its config."""
    return _rotary(Qwen2ForCausalLM, Qwen2Config, changes)


def _rotary(kind, config, changes):
    sizes = {"vocab_size": 384, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 80}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    return _with_random_weights(kind, config(**{**sizes, **heads, **special, **changes}))


def _with_random_weights(kind, config):
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, so that a test notices a missing one
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def train_tokenizer():
    """Return a byte-level BPE tokenizer of at most 384 tokens, with <|endoftext|> as id 0 as in StarCoder."""
    return tokenizers.Tokenizer.from_str(_trained_tokenizer_json())


@functools.cache
def _trained_tokenizer_json():
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=[EOS, FIM], initial_alphabet=alphabet, show_progress=False)
    texts = [
        wizardcoder_prompt("Write a Python function that returns the sum of two numbers."),
        "def add(a, b):",
    ]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def save_folder(model, folder: Path) -> Path:
    """Write `model` and the tokenizer to `folder` as transformers would."""
    model.save_pretrained(folder)
    tokenizer = train_tokenizer()
    if model.config.model_type == "qwen2":  # transformers uses these steps for Qwen2 regardless of the file
        theirs = Qwen2Tokenizer().backend_tokenizer
        tokenizer.normalizer, tokenizer.pre_tokenizer = theirs.normalizer, theirs.pre_tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(f'{{"eos_token": "{EOS}", "tokenizer_class": "PreTrainedTokenizerFast"}}')
    return folder


def ours(model, folder: Path):
    """Save a transformers model to a folder, and load it as our Transformer in float32."""
    return ModelSource(str(save_folder(model, folder))).weights(RULES["fsdp"], make_mesh("1x1"), jnp.float32).model


def save_model_and_data(folder, num_records):
    """Write inputs of the train command to `folder`, a model `llama` and instructions `data.jsonl`; return the folder."""
    save_folder(llama(vocab_size=393), folder / "llama")
    records = [{"instruction": f"Add {i}.", "output": f"return a + {i}\n" * (1 + i % 5)} for i in range(num_records)]
    (folder / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder
