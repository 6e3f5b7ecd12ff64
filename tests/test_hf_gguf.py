import importlib.util
import os

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from wizardcoder_jax.errors import InputError
from wizardcoder_jax.hf.folder import EMBEDDED, Source
from wizardcoder_jax.hf.tokenizer import tokenizer_from_files
from wizardcoder_jax.hf.weights import hf_tensors
from wizardcoder_jax.sampling.engine import Decoding, Engine, Request
from wizardcoder_jax.sharding import RULES, make_mesh

PACKAGE, FILE = EMBEDDED["smollm2-135m-instruct"]
SPEC = importlib.util.find_spec(PACKAGE)
pytestmark = pytest.mark.skipif(SPEC is None, reason=f"no {PACKAGE}; make setup installs it")
MESSAGE = "Write a Python function add(a, b) that returns the sum of a and b."


@pytest.fixture(scope="module")
def path():
    return os.path.join(os.path.dirname(SPEC.origin), FILE)


@pytest.fixture(scope="module")
def source():
    return Source("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def model(source):
    return source.weights(RULES["fsdp"], make_mesh("1x1"), jnp.float32)


@pytest.fixture(scope="module")
def theirs(path):
    """transformers' own reading of the same file, in the published architecture."""
    sizes = {"hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "vocab_size": 49152}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192}
    rest = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, **rest))
    tensors = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)["tensors"]
    whole = {name: torch.as_tensor(tensor).float() for name, tensor in tensors.items()}
    model = LlamaForCausalLM(model.config).eval()
    missing, surplus = model.load_state_dict(whole, strict=False)
    assert (missing, surplus) == (["lm_head.weight"], [])
    return model


def test_the_architecture_is_the_published_one(source):
    arch = source.arch
    assert arch.num_params == 134_515_008
    assert (arch.num_layers, arch.embed_dim, arch.num_heads, arch.num_kv_heads, arch.mlp_dim) == (30, 576, 9, 3, 1536)
    assert (arch.vocab_size, arch.max_positions, arch.rope_theta, arch.norm_eps) == (49152, 8192, 1e5, 1e-5)
    assert (arch.tie_embeddings, arch.rope_scale, arch.eos_id) == (True, 1.0, 2)


def test_tensors_are_the_dequantised_ones_with_queries_and_keys_put_back_in_order(path, model):
    ours = dict(hf_tensors(model, None))
    raw = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}

    def dequantise(name):
        return gguf.quants.dequantize(raw[name].data, raw[name].tensor_type)

    np.testing.assert_array_equal(ours["model.embed_tokens.weight"], dequantise("token_embd.weight"))
    np.testing.assert_array_equal(ours["model.layers.29.mlp.down_proj.weight"], dequantise("blk.29.ffn_down.weight"))
    np.testing.assert_array_equal(ours["model.layers.0.self_attn.v_proj.weight"], dequantise("blk.0.attn_v.weight"))
    stored, ordered = dequantise("blk.7.attn_k.weight"), ours["model.layers.7.self_attn.k_proj.weight"]
    for head in range(3):
        for i in range(32):  # llama.cpp rotates neighbours, transformers places half a head apart
            for half in range(2):
                np.testing.assert_array_equal(ordered[head * 64 + half * 32 + i], stored[head * 64 + 2 * i + half])


def test_every_tensor_equals_transformers_reading(model, theirs):
    expected = theirs.state_dict()
    names = set()
    for name, tensor in hf_tensors(model, None):
        np.testing.assert_array_equal(tensor, expected[name].numpy(), err_msg=name)
        names.add(name)
    assert set(expected) - names == {"lm_head.weight"}


def test_logits_equal_transformers(source, model, theirs):
    tokens = np.asarray([source.tokenizer.encode(source.tokenizer.chat_prompt(MESSAGE))])
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    positions = jnp.arange(tokens.shape[1])[None]
    logits = jax.jit(lambda m, t: m.logits(m(t, positions, jnp.ones_like(t), dtype=jnp.float32)))(model, jnp.asarray(tokens))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)


def test_a_greedy_chat_answer_is_sensible(source, model):
    prompt = tuple(source.tokenizer.encode(source.tokenizer.chat_prompt(MESSAGE)))
    decoding = Decoding(temperature=0, top_p=1, eos_id=source.tokenizer.eos_id, max_length=len(prompt) + 40)
    [(_, answer)] = Engine(model, decoding, 1, jnp.float32).answer([Request(prompt=prompt, key=(0, 0))])
    text = source.tokenizer.decode(answer.tokens)
    assert "def add(a, b):" in text
    assert "return a + b" in text


def test_text_survives_the_tokenizer(source):
    for text in ("def f(x):\n\treturn x ** 2  # naïve\n", "日本語 🙂 1234567", "  leading and  inner   spaces ", ""):
        assert source.tokenizer.decode(source.tokenizer.encode(text)) == text
    assert len(source.tokenizer.encode("1234567")) == 7  # digits stand alone


def test_special_tokens_are_single_ids_and_left_out_of_text(source):
    tokenizer = source.tokenizer
    for i, token in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]):
        assert tokenizer.encode(token) == [i]
        assert tokenizer.decode([i]) == ""
    assert tokenizer.eos_id == 2
    assert tokenizer.encode("a<|im_end|>b") == [*tokenizer.encode("a"), 2, *tokenizer.encode("b")]
    assert tokenizer.vocab_size == 49152


def test_the_chat_prompt_is_chatml_with_the_models_system_message(source):
    assert source.tokenizer.chat_prompt("Hi") == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_rebuilt_tokenizer_survives_export(source):
    again = tokenizer_from_files(source.tokenizer.to_files(), "exported", None)
    assert again.fingerprint == source.tokenizer.fingerprint
    assert again.chat_prompt("Hi") == source.tokenizer.chat_prompt("Hi")


@pytest.mark.parametrize("num_bytes", [0, 100, 50_000_000])
def test_a_truncated_file_is_named(path, tmp_path, num_bytes):
    short = tmp_path / "short.gguf"
    with open(path, "rb") as whole, short.open("wb") as part:
        part.write(whole.read(num_bytes))
    with pytest.raises(InputError, match=r"short\.gguf: truncated or not a GGUF file"):
        Source(str(short))


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "model.gguf").write_text("PK" * 100)
    with pytest.raises(InputError, match=r"model\.gguf: truncated or not a GGUF file"):
        Source(str(tmp_path / "model.gguf"))


def test_a_family_other_than_llama_is_named(tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "model.gguf"), "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="GGUF architecture 'mamba' is not supported"):
        Source(str(tmp_path / "model.gguf"))


def test_a_missing_key_is_named(tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "model.gguf"), "llama")
    writer.add_head_count(4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"model\.gguf: the key llama\.embedding_length is missing"):
        Source(str(tmp_path / "model.gguf"))
