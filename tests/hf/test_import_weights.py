"""Import and export of Hugging Face folders: bit equality, shards, tokenizers, and errors for malformed folders."""

import json
import unicodedata

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.helpers import tiny_models
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf.export_folder import export_folder, parse_size
from wizardcoder_jax.hf.model_source import ModelSource
from wizardcoder_jax.hf.safetensors_io import INDEX_FILE

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MODELS = {
    "gpt_bigcode": lambda: tiny_models.gpt_bigcode(vocab_size=393),
    "gpt_bigcode multi-head": lambda: tiny_models.gpt_bigcode(multi_query=False),
    "llama": lambda: tiny_models.llama(vocab_size=393),
    "llama tied": lambda: tiny_models.llama(tie_word_embeddings=True),
    "starcoder2": lambda: tiny_models.starcoder2(vocab_size=393, sliding_window=8),
    "starcoder2 untied, without biases": lambda: tiny_models.starcoder2(use_bias=False, tie_word_embeddings=False),
    "qwen2": lambda: tiny_models.qwen2(vocab_size=393),
}
TEXTS = [
    "def add(a, b):\n\treturn a + b\n",
    "  two  spaces,\ttabs\t\tand\r\nlines \n\n\n",
    "naïve café 日本語 🙂 \u2028 e\u0301",
    f"{tiny_models.EOS}before{tiny_models.FIM} after {tiny_models.EOS}",
    "<|endoftext |> it's 'quoted' , . ! ?",
    "",
]


def imported(folder, dtype=None):
    source = ModelSource(str(folder))
    return source, source.weights(RULES["fsdp"], make_mesh("1x1"), dtype)


def exported(source_folder, target, dtype=None, max_shard_bytes=10**9):
    source, model = imported(source_folder)
    export_folder(model, source.tokenizer, str(target), dtype, max_shard_bytes)
    return target


def read_tensors(folder):
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors.update(safetensors.torch.load_file(file))
    return tensors


def assert_bit_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert torch.equal(one[name].view(torch.uint8), other[name].view(torch.uint8)), name


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    return tiny_models.save_folder(MODELS[request.param](), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    return tiny_models.save_folder(tiny_models.llama(), tmp_path_factory.mktemp("llama"))


@pytest.fixture
def broken(llama_folder, tmp_path):
    """A copy of a folder for the test to break."""
    for file in llama_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


# float32 and float16 for one model only by default; the mapping of tensors does not depend on the dtype.
@pytest.mark.parametrize(
    ("folder", "dtype"),
    [
        pytest.param(name, dtype, marks=[] if dtype == "bfloat16" or name == "llama" else pytest.mark.slow)
        for name in MODELS
        for dtype in DTYPES
    ],
    indirect=["folder"],
)
def test_import_then_export_is_the_identity(folder, dtype, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype])
    original = tiny_models.save_folder(model, tmp_path / "original")
    assert_bit_equal(read_tensors(exported(original, tmp_path / "exported")), read_tensors(original))
    config = json.loads((tmp_path / "exported/config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == dtype


def test_shards_contain_the_same_tensors_and_an_index(folder, tmp_path):
    target = exported(folder, tmp_path / "sharded", max_shard_bytes=20_000)
    index = json.loads((target / INDEX_FILE).read_text())
    shards = sorted(file.name for file in target.glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert sorted(set(index["weight_map"].values())) == shards
    tensors = read_tensors(target)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    for name, shard in index["weight_map"].items():
        assert name in safetensors.torch.load_file(target / shard)
    assert_bit_equal(tensors, read_tensors(folder))
    assert_bit_equal(read_tensors(exported(target, tmp_path / "again")), tensors)


def test_transformers_loads_an_exported_folder_with_the_same_logits(folder, tmp_path):
    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loaded, report = AutoModelForCausalLM.from_pretrained(
        exported(folder, tmp_path / "exported", max_shard_bytes=50_000), dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values())
    tokens = torch.randint(0, 384, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, original(tokens).logits)
    assert sum(p.numel() for p in original.parameters()) == ModelSource(str(folder)).arch.num_params


def test_the_tokenizer_is_exported_unchanged_and_equals_transformers(folder, tmp_path):
    theirs = AutoTokenizer.from_pretrained(folder)
    loaded = AutoTokenizer.from_pretrained(exported(folder, tmp_path / "exported"))
    ours = ModelSource(str(folder)).tokenizer
    for text in TEXTS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == ids
        assert loaded.encode(text, add_special_tokens=False) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
        normalized = unicodedata.normalize("NFC", text) if loaded.backend_tokenizer.normalizer else text
        assert loaded.decode(ids) == normalized
    assert loaded.eos_token_id == ours.eos_id == 0
    assert ours.encode(tiny_models.EOS) == [0]
    assert ModelSource(str(tmp_path / "exported")).tokenizer.fingerprint == ours.fingerprint


def test_a_chat_template_is_exported_and_renders_as_in_transformers(llama_folder, tmp_path):
    source, model = imported(llama_folder)
    template = "{% for m in messages %}\n  {{ m['role'] + ': ' + m['content'] + eos_token }}\n{% endfor %}ASSISTANT:"
    export_folder(model, source.tokenizer.with_chat_template(template), str(tmp_path / "exported"), None, 10**9)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "exported")
    message = [{"role": "user", "content": "Add two numbers."}]
    rendered = theirs.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert ModelSource(str(tmp_path / "exported")).tokenizer.chat_prompt("Add two numbers.") == rendered
    assert tiny_models.EOS in rendered


def test_export_converts_to_the_requested_dtype(llama_folder, tmp_path):
    tensors = read_tensors(exported(llama_folder, tmp_path / "half", jnp.bfloat16))
    for name, tensor in read_tensors(llama_folder).items():
        assert torch.equal(tensors[name], tensor.to(torch.bfloat16)), name


def test_export_replaces_a_folder_and_leaves_no_temporary_files(llama_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model-00001-of-00002.safetensors").write_text("stale")
    exported(llama_folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out/model-00001-of-00002.safetensors").exists()


def test_the_vocabulary_is_padded_with_zeros_that_export_removes(tmp_path):
    folder = tiny_models.save_folder(tiny_models.llama(vocab_size=49153, hidden_size=8, head_dim=4), tmp_path / "odd")
    _, model = imported(folder)
    for table in (model.model.tokens, model.model.head):
        assert table.shape == (49408, 8)
        assert not np.asarray(table[49153:]).any()
    tensors = read_tensors(exported(folder, tmp_path / "exported"))
    assert tensors["model.embed_tokens.weight"].shape == tensors["lm_head.weight"].shape == (49153, 8)
    assert_bit_equal(tensors, read_tensors(folder))


@pytest.mark.parametrize("family", ["gpt_bigcode", "llama"])
def test_a_tied_head_in_the_file_is_ignored(family, tmp_path):
    make = {"gpt_bigcode": tiny_models.gpt_bigcode, "llama": tiny_models.llama}[family]
    folder = tiny_models.save_folder(make(tie_word_embeddings=True), tmp_path / "model")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    table = next(name for name in tensors if name.endswith(("wte.weight", "embed_tokens.weight")))
    safetensors.numpy.save_file({**tensors, "lm_head.weight": tensors[table]}, folder / "model.safetensors")
    kept = read_tensors(exported(folder, tmp_path / "exported"))
    assert kept.keys() == tensors.keys()


@pytest.mark.parametrize("change", ["missing", "surplus", "wrongly shaped"])
def test_missing_surplus_and_misshapen_tensors_are_rejected_by_name(broken, change):
    tensors = safetensors.numpy.load_file(broken / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    if change == "missing":
        del tensors[name]
    elif change == "surplus":
        tensors["model.layers.2.extra.weight"] = tensors[name]
    else:
        tensors[name] = np.ascontiguousarray(tensors[name].T)
    safetensors.numpy.save_file(tensors, broken / "model.safetensors")
    expected = {
        "missing": f"the tensor {name} is missing",
        "surplus": r"1 tensors do not belong to the model, e.g. model\.layers\.2\.extra\.weight",
        "wrongly shaped": rf"{name} has shape \[32, 80\], expected \[80, 32\]",
    }
    with pytest.raises(InputError, match=expected[change]):
        imported(broken)


@pytest.mark.parametrize("kept", [0.5, 0.001, 0])
def test_a_truncated_safetensors_file_is_rejected(broken, kept):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    with pytest.raises(
        InputError, match=r"model\.safetensors: truncated(: the tensor \S+ ends at byte \d+| or not a safetensors file)"
    ):
        imported(broken)


def test_a_missing_weight_file_or_malformed_index_is_rejected(broken):
    (broken / "model.safetensors").rename(broken / "elsewhere")
    with pytest.raises(InputError, match=r"contains neither model\.safetensors nor pytorch_model\.bin"):
        imported(broken)
    index = broken / INDEX_FILE
    for text in ("{", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}'):
        index.write_text(text)
        with pytest.raises(InputError, match=r"index\.json: not an index"):
            imported(broken)
    index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(InputError, match=r"model-00001-of-00002\.safetensors is missing"):
        imported(broken)


@pytest.mark.parametrize("text", ["{", "", "[]", "3", "\ufeff{", "null"])
def test_a_malformed_config_is_rejected(broken, text):
    (broken / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json"):
        ModelSource(str(broken))


def test_a_config_that_is_not_text_or_missing_is_rejected(broken):
    (broken / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"config\.json"):
        ModelSource(str(broken))
    (broken / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json is missing"):
        ModelSource(str(broken))


@pytest.mark.parametrize("text", [None, "{", "{}", "\udcff"])
def test_a_missing_or_malformed_tokenizer_is_rejected(broken, text):
    file = broken / "tokenizer.json"
    file.unlink()
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"tokenizer\.json is missing" if text is None else "tokenizer"):
        ModelSource(str(broken))


@pytest.mark.parametrize("text", ["[]", '{"eos_token": 3}', '{"eos_token": {"text": "x"}}', '{"eos_token": "<none>"}'])
def test_an_invalid_tokenizer_config_is_rejected(broken, text):
    (broken / "tokenizer_config.json").write_text(text)
    with pytest.raises(InputError, match="token"):
        ModelSource(str(broken))


def test_a_tokenizer_larger_than_the_model_is_rejected(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    with pytest.raises(InputError, match=r"tokenizer has ids up to \d+, but the model only 100 ids"):
        ModelSource(str(broken))


def test_the_end_of_text_token_defaults_to_that_of_the_model(broken):
    (broken / "tokenizer_config.json").unlink()
    assert ModelSource(str(broken)).tokenizer.eos_id == 0


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "nowhere", "model.gguf"])
def test_a_missing_model_is_reported(name):
    with pytest.raises(InputError, match=f"no model at {name}"):
        ModelSource(name)


@pytest.mark.parametrize(("size", "num_bytes"), [("5GB", 5 * 10**9), ("500mb", 5 * 10**8), ("7KB", 7000), ("123", 123)])
def test_sizes_are_parsed(size, num_bytes):
    assert parse_size(size) == num_bytes


@pytest.mark.parametrize("size", ["", "GB", "1.5GB", "-3", "0", "5TB", "5BG", "five"])
def test_a_malformed_size_is_rejected(size):
    with pytest.raises(InputError, match="not of the form 5GB"):
        parse_size(size)
