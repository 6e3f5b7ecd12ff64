"""GGUF files: dequantization, settings, damaged files, and the model embedded in a PyPI package."""

import functools
import importlib.util
import os
import random
import subprocess
import sys

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from tests.helpers import tiny_gguf
from tests.helpers.tiny_gguf import BLOCKS, EMBED, HEADS, LAYERS, MLP, QUANTIZABLE, Kind
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.logging_setup import configure_logging
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf.gguf import GgufFile
from wizardcoder_jax.hf.model_source import EMBEDDED, ModelSource
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.request import GenerationRequest

PACKAGE, FILE = EMBEDDED["smollm2-135m-instruct"]
SPEC = importlib.util.find_spec(PACKAGE)
MESSAGE = "Write a Python function add(a, b) that returns the sum of a and b."
TO_HF = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
TO_HF |= {
    f"blk.{i}.{theirs}": f"model.layers.{i}.{ours}"
    for i in range(30)
    for theirs, ours in {
        **{f"attn_{c}": f"self_attn.{c}_proj" for c in "qkv"},
        "attn_output": "self_attn.o_proj",
        **{f"ffn_{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }.items()
}


def permute_like_llama_cpp(rows, num_heads):
    """Return the rows of a query or key projection in the order of GGUF (conversion/llama.py of ggml-org/llama.cpp)."""
    return rows.reshape(num_heads, 2, rows.shape[0] // num_heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def expected_tensors(path, num_kv_heads):
    """Return all tensors under their Hugging Face names, read and dequantized with the gguf package."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        name = TO_HF[tensor.name.removesuffix(".weight")] + ".weight"
        if "q_proj" in name or "k_proj" in name:
            in_file = permute_like_llama_cpp(np.arange(len(array)), HEADS if "q_proj" in name else num_kv_heads)
            stored, array = array, np.empty_like(array)
            array[in_file] = stored
        found[name] = array.reshape([int(dim) for dim in reversed(tensor.shape)])
    return found


def transformers_model(tensors, num_kv_heads, tied, **changes):
    vocab_size = tensors["model.embed_tokens.weight"].shape[0]
    sizes = {"hidden_size": EMBED, "intermediate_size": MLP, "num_hidden_layers": LAYERS, "vocab_size": vocab_size}
    rest = {"max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": tied}
    rope = {"rope_type": "default", "rope_theta": 20000.0, **changes}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": num_kv_heads}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **rest, **heads, rope_parameters=rope)).eval()
    missing, surplus = model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()}, strict=False)
    assert (missing, surplus) == (["lm_head.weight"] if tied else [], [])
    return model


@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles faster
def logits_of(model, tokens, positions):
    return model.logits(model(tokens, positions, jnp.ones_like(tokens), dtype=jnp.float32))


def assert_equal_logits(ours, theirs, tokens, atol):
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    logits = logits_of(ours, jnp.asarray(tokens), positions)
    assert np.abs(expected).max() > 0.5  # not a comparison of zeros
    np.testing.assert_allclose(logits[..., : expected.shape[-1]], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", [*QUANTIZABLE, *BLOCKS], ids=lambda kind: kind.name)
def test_tensors_of_every_type_are_dequantized_as_by_the_gguf_package(kind, tmp_path):
    path = tiny_gguf.write_model(tmp_path / "model.gguf", kind)
    file, expected = GgufFile(str(path)), expected_tensors(path, 2)
    assert file.names() == list(expected)  # the order of the file
    for name, array in expected.items():
        ours = file.read(name)
        assert (ours.dtype, ours.shape) == (file.dtype(name), file.shape(name))
        np.testing.assert_array_equal(ours, array, err_msg=name)
        assert np.abs(ours).max() > 0


@pytest.mark.parametrize(
    ("kind", "num_kv_heads", "tied"),
    [(Kind.Q4_K, 2, True), (Kind.Q8_0, 1, False), (Kind.Q5_0, 4, True), (Kind.BF16, 2, False)],
    ids=["grouped-query", "multi-query", "multi-head", "untied"],
)
def test_logits_equal_transformers_with_the_dequantized_tensors(kind, num_kv_heads, tied, tmp_path):
    path = tiny_gguf.write_model(tmp_path / "model.gguf", kind, num_kv_heads, tied)
    source = ModelSource(str(path))
    assert (source.arch.num_kv_heads, source.arch.tie_embeddings) == (num_kv_heads, tied)
    theirs = transformers_model(expected_tensors(path, num_kv_heads), num_kv_heads, tied)
    tokens = np.random.default_rng(0).integers(2, source.arch.vocab_size, (2, 48))
    assert_equal_logits(source.weights(RULES["fsdp"], make_mesh("1x1"), jnp.float32).model, theirs, tokens, 1e-4)


@pytest.mark.parametrize("key", ["llama__rope__scaling__factor", "llama__rope__scale_linear"])
def test_linear_scaling_of_positions_equals_transformers(key, tmp_path):
    path = tiny_gguf.write_model(tmp_path / "model.gguf", **{key: 4.0, "llama__rope__scaling__type": "linear"})
    source = ModelSource(str(path))
    theirs = transformers_model(expected_tensors(path, 2), 2, True, rope_type="linear", factor=4.0)
    tokens = np.random.default_rng(0).integers(2, source.arch.vocab_size, (1, 48))
    assert_equal_logits(source.weights(RULES["fsdp"], make_mesh("1x1"), jnp.float32).model, theirs, tokens, 1e-4)


def test_the_scaling_type_none_ignores_the_factor(tmp_path):
    changes = {"llama__rope__scaling__type": "none", "llama__rope__scaling__factor": 4.0}
    assert GgufFile(str(tiny_gguf.write_model(tmp_path / "model.gguf", **changes))).arch.rope_scale == 1.0


def test_lists_of_equal_numbers_for_all_layers_are_read_as_one_number(tmp_path):
    changes = {"llama__attention__head_count_kv": [2, 2], "llama__feed_forward_length": [MLP, MLP]}
    arch = GgufFile(str(tiny_gguf.write_model(tmp_path / "model.gguf", **changes))).arch
    assert (arch.num_kv_heads, arch.mlp_dim, arch.norm_eps, arch.rope_theta) == (2, MLP, 1e-5, 20000.0)


def test_reading_tensors_one_after_another_does_not_accumulate_memory(tmp_path):
    """16 float16 tensors of 32 MB each (64 MB as float32) in a file of 512 MB; what has been read must not stay resident."""
    path = str(tmp_path / "big.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    for i in range(16):
        writer.add_tensor_info(f"t{i}", (4096, 4096), np.dtype(np.float16), 4096 * 4096 * 2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, os.path.getsize(path) + 64 + 16 * 4096 * 4096 * 2)  # a sparse file of zeros
    code = (
        "import resource, sys\nfrom wizardcoder_jax.hf.gguf_reader import GgufReader\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "reader, before = GgufReader(sys.argv[1]), peak()\n"
        "for name in reader.tensors: assert reader.read(name).shape == (4096, 4096)\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2 * 64 + 30  # MB: one result, the previous one, a chunk


SURPLUS = {"blk.0.attn_q.bias": np.zeros(EMBED, np.float32)}
REJECTED = {  # changed metadata, added tensors, message
    "rope scaling by yarn": (
        {"llama.rope.scaling.type": "yarn"},
        {},
        r"rope\.scaling\.type='yarn' changes the computation",
    ),
    "longrope": ({"llama.rope.scaling.type": "longrope"}, {}, r"scaling\.type='longrope' changes the computation"),
    "a factor of the scores": ({"llama.rope.scaling.attn_factor": 1.2}, {}, r"attn_factor=1\.2\d* changes the computation"),
    "Llama 3's factors": ({}, {"rope_freqs.weight": np.ones(32, np.float32)}, r"rope_freqs\.weight scales each rotary"),
    "experts": ({"llama.expert_count": 8}, {}, r"llama\.expert_count=8 changes the computation"),
    "partly rotated heads": ({"llama.rope.dimension_count": 32}, {}, r"rope\.dimension_count=32 differs from the head size 64"),
    "values of another size": ({"llama.attention.value_length": 32}, {}, r"value_length=32 differs from the head size 64"),
    "a window": ({"llama.attention.sliding_window": 16}, {}, r"sliding_window=16 changes the computation"),
    "layers that differ": ({"llama.attention.head_count_kv": [2, 1]}, {}, r"head_count_kv=\[2, 1\] must be a whole number"),
    "a surplus tensor": ({}, SURPLUS, r"1 tensors do not belong to the model, e\.g\. blk\.0\.attn_q\.bias"),
    "a type that is no weight": ({}, {"ids": np.arange(8, dtype=np.int32)}, r"ids is of type I32, which cannot be read"),
    "an adapter": ({"general.type": "adapter"}, {}, r"is not a model \(general\.type='adapter'\)"),
    "another family": ({"general.architecture": "mamba"}, {}, r"GGUF architecture 'mamba' is not supported"),
    "a part of a model": ({"split.count": 3}, {}, r"one of 3 shards of a model; join them"),
    "a missing size": ({"llama.embedding_length": None}, {}, r"the key 'llama\.embedding_length' is missing"),
    "a missing epsilon": ({"llama.attention.layer_norm_rms_epsilon": None}, {}, r"rms_epsilon' is missing"),
    "a size of a wrong type": ({"llama.block_count": "2"}, {}, r"llama\.block_count='2' must be a whole number"),
    "a number of a wrong type": ({"llama.rope.freq_base": True}, {}, r"freq_base=True must be a finite number"),
    "heads that do not divide": ({"llama.attention.head_count": 3}, {}, r"256 is not a multiple of the number of heads 3"),
    "heads that do not group": ({"llama.attention.head_count_kv": 3}, {}, r"num_heads 4 is not a multiple of num_kv_heads 3"),
    "another vocabulary": (
        {"tokenizer.ggml.tokens": ["a", "b"]},
        {},
        r"token_type has \d+ entries, but tokenizer\.ggml\.tokens has 2",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_unsupported_settings_and_tensors_are_rejected_by_name(case, tmp_path):
    changes, added, message = REJECTED[case]
    metadata = {**tiny_gguf.model_metadata(), **tiny_gguf.tokenizer_metadata()}
    tensors = tiny_gguf.weights(len(metadata["tokenizer.ggml.tokens"])) | added
    path = tiny_gguf.write(tmp_path / "model.gguf", metadata | changes, tensors)
    with pytest.raises(InputError, match=rf"model\.gguf: .*{message}") as caught:
        ModelSource(str(path)).weights(RULES["fsdp"], make_mesh("1x1"), None)
    assert "\n" not in str(caught.value)


def test_a_missing_tensor_is_rejected_by_name(tmp_path):
    metadata = {**tiny_gguf.model_metadata(), **tiny_gguf.tokenizer_metadata()}
    tensors = tiny_gguf.weights(len(metadata["tokenizer.ggml.tokens"]))
    del tensors["blk.1.ffn_up.weight"]
    source = ModelSource(str(tiny_gguf.write(tmp_path / "model.gguf", metadata, tensors)))
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        source.weights(RULES["fsdp"], make_mesh("1x1"), None)


def test_an_unknown_setting_without_effect_is_logged(tmp_path, capsys):
    configure_logging()
    GgufFile(str(tiny_gguf.write_model(tmp_path / "model.gguf", llama__tensor_data_layout="Meta AI original pth")))
    assert "ignored unknown keys that do not affect the model: llama.tensor_data_layout" in capsys.readouterr().err


def test_a_big_endian_file_is_rejected(tmp_path):
    path = tiny_gguf.write(tmp_path / "model.gguf", tiny_gguf.model_metadata(), {}, endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(InputError, match=r"model\.gguf: a big-endian GGUF file cannot be read"):
        GgufFile(str(path))


@pytest.mark.parametrize(
    ("offset", "number", "message"),
    [
        (4, 1, "GGUF version 1 is not supported"),
        ("blk.0.attn_v.weight", 5, r"attn_v\.weight has 5 dims"),
        ("dim", 250, r"attn_v\.weight \[128, 250\] of type 2 cannot be read"),
        ("type", 77, r"attn_v\.weight \[128, 256\] of type 77 cannot be read"),
    ],
)
def test_a_malformed_header_is_rejected(offset, number, message, tmp_path):
    path = tiny_gguf.write_model(tmp_path / "model.gguf", Kind.Q4_0)
    content = bytearray(path.read_bytes())
    if offset != 4:
        after_name = content.index(b"blk.0.attn_v.weight") + len("blk.0.attn_v.weight")
        offset = after_name + {"dim": 4, "type": 20}.get(offset, 0)  # uint32 dims, uint64 each, uint32 type
    content[offset : offset + 4] = number.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"model\.gguf: .*{message}"):
        GgufFile(str(path))


def test_a_file_truncated_at_any_byte_is_rejected(tmp_path):
    content = tiny_gguf.write_model(tmp_path / "model.gguf", Kind.Q4_0).read_bytes()
    short = tmp_path / "short.gguf"
    draw = random.Random(0)
    for num_bytes in [0, 3, 6, 20, len(content) - 1, *(draw.randrange(len(content)) for _ in range(60))]:
        short.write_bytes(content[:num_bytes])
        with pytest.raises(InputError, match=r"short\.gguf: .*(truncated or not a GGUF file|version)"):
            GgufFile(str(short))


def test_a_damaged_header_is_an_input_error_or_harmless(tmp_path):
    content = tiny_gguf.write_model(tmp_path / "model.gguf", Kind.Q4_0).read_bytes()
    header = content.index(b"blk.1.ffn_down.weight") + 60
    damaged, draw, num_rejected = tmp_path / "damaged.gguf", random.Random(0), 0
    for _ in range(300):
        broken = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            broken[draw.randrange(header)] = draw.randrange(256)
        damaged.write_bytes(broken)
        try:
            file = GgufFile(str(damaged))
            file.tokenizer().encode("def add(a, b):")
        except InputError as error:
            assert str(damaged) in str(error) and "\n" not in str(error)
            num_rejected += 1
    assert num_rejected > 50


def test_a_file_of_another_format_is_rejected(tmp_path):
    (tmp_path / "model.gguf").write_text("PK" * 100)
    with pytest.raises(InputError, match=r"model\.gguf: truncated or not a GGUF file"):
        ModelSource(str(tmp_path / "model.gguf"))


def test_a_file_that_shrinks_while_it_is_read_is_rejected(tmp_path):
    path = tiny_gguf.write_model(tmp_path / "model.gguf", Kind.Q4_0)
    file = GgufFile(str(path))
    os.truncate(path, 20_000)
    with pytest.raises(InputError, match=r"model\.gguf: truncated within the tensor blk\.1\.ffn_down\.weight"):
        file.read("model.layers.1.mlp.down_proj.weight")


@pytest.fixture(scope="module")
def path():
    if SPEC is None:
        pytest.skip(f"no {PACKAGE}; make setup installs it")
    return os.path.join(os.path.dirname(SPEC.origin), FILE)


@pytest.fixture(scope="module")
def source(path):
    return ModelSource("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def model(source):
    return source.weights(RULES["fsdp"], make_mesh("1x1"), jnp.float32).model


@pytest.fixture(scope="module")
def theirs(path):
    """transformers' model from the same file, in the published architecture."""
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


def test_the_embedded_model_has_the_published_architecture(source):
    arch = source.arch
    assert arch.num_params == 134_515_008
    assert (arch.num_layers, arch.embed_dim, arch.num_heads, arch.num_kv_heads, arch.mlp_dim) == (30, 576, 9, 3, 1536)
    assert (arch.vocab_size, arch.max_positions, arch.rope_theta, arch.norm_eps) == (49152, 8192, 1e5, 1e-5)
    assert (arch.tie_embeddings, arch.rope_scale, arch.eos_id) == (True, 1.0, 2)


def test_every_tensor_of_the_embedded_model_equals_transformers(path, theirs):
    file, expected = GgufFile(path), theirs.state_dict()
    for name in file.names():
        np.testing.assert_array_equal(file.read(name), expected[name].numpy(), err_msg=name)
    assert set(expected) - set(file.names()) == {"lm_head.weight"}


@pytest.mark.slow
def test_logits_of_the_embedded_model_equal_transformers(source, model, theirs):
    tokens = np.asarray([source.tokenizer.encode(source.tokenizer.chat_prompt(MESSAGE))])
    assert_equal_logits(model, theirs, tokens, 1e-3)


@pytest.mark.slow
def test_a_greedy_chat_answer_of_the_embedded_model_is_sensible(source, model):
    prompt = tuple(source.tokenizer.encode(source.tokenizer.chat_prompt(MESSAGE)))
    length, eos_ids = len(prompt) + 40, [source.tokenizer.eos_id]
    engine = Engine(model.unstack_layers(), num_slots=1, max_length=length, eos_ids=eos_ids, dtype=jnp.float32)
    [(_, answer)] = engine.generate([GenerationRequest(prompt=prompt, key=(0, 0), max_length=length)])
    text = source.tokenizer.decode(answer.tokens)
    assert "def add(a, b):" in text
    assert "return a + b" in text
