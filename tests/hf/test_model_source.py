import json
import os
import pickle
import struct

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from tests.helpers import tiny_models
from tests.helpers.processes import run_python
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf import torch_checkpoint
from wizardcoder_jax.hf.export_folder import export_folder
from wizardcoder_jax.hf.import_weights import CHECKSUM_FILE
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.hf.model_source import ModelSource
from wizardcoder_jax.hf.safetensors_io import INDEX_FILE

LAYER = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder of a tiny Llama in bfloat16."""
    model = tiny_models.llama().to(torch.bfloat16)
    return tiny_models.save_folder(model, tmp_path_factory.mktemp("llama"))


@pytest.fixture
def folder(original, tmp_path):
    """A copy of it, for the test to change."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in original.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def weights(folder, dtype=None):
    return ModelSource(str(folder)).weights(RULES["fsdp"], make_mesh("1x1"), dtype)


def export(weights, folder, target, **changes):
    arguments = {"dtype": None, "max_shard_bytes": 10**9, **changes}
    export_folder(weights, ModelSource(str(folder)).tokenizer, str(target), **arguments)
    return target


def tensors_of(folder):
    return {name: t for file in folder.glob("*.safetensors") for name, t in safetensors.torch.load_file(file).items()}


def assert_same_tensors(one, other):
    one, other = tensors_of(one), tensors_of(other)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor.contiguous().view(torch.uint8), other[name].contiguous().view(torch.uint8)), name


def as_bin(folder, kind):
    """The same folder with its weights as torch saves them."""
    tensors = tensors_of(folder)
    (folder / "model.safetensors").unlink()
    if kind != "sharded":
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "zip")
        return
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, held in shards.items():
        torch.save({name: tensors[name] for name in held}, folder / file)
    weight_map = {name: file for file, held in shards.items() for name in held}
    (folder / torch_checkpoint.INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("kind", ["zip", "legacy", "sharded"])
def test_torch_files_hold_the_same_model(original, folder, kind, tmp_path):
    as_bin(folder, kind)
    assert_same_tensors(export(weights(folder), folder, tmp_path / "out"), original)


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(folder, tmp_path, legacy):
    (folder / "model.safetensors").unlink()
    held = {"a": torch.zeros(2), "b": Payload(str(tmp_path / "run"))}
    torch.save(held, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        InputError, match=r"pytorch_model\.bin: its pickle contains (posix|os)\.mkdir, not only tensors; refused"
    ):
        ModelSource(str(folder))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("held", "complaint"),
    [
        ([torch.zeros(2)], "contains a list, expected named tensors; refused"),
        ({"model": {"a": torch.zeros(2)}}, "the entry 'model' is a dict, not a tensor; refused"),
        ({"a": torch.zeros(2), "epoch": 3}, "the entry 'epoch' is a int, not a tensor; refused"),
        ({1: torch.zeros(2)}, "the entry 1 is a Tensor, not a tensor; refused"),
        ({"a": torch.zeros(2, dtype=torch.int8)}, "the tensor a is int8, torch.strided on cpu; refused"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "the tensor a is float32, torch.sparse_coo on cpu; refused"),
    ],
)
def test_a_pickle_of_anything_but_named_tensors_is_refused(folder, held, complaint):
    (folder / "model.safetensors").unlink()
    torch.save(held, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=complaint):
        ModelSource(str(folder))


@pytest.mark.parametrize("content", [b"", b"\x80\x04}", pickle.dumps({"a": 1}), b"PK\x03\x04 no zip"])
def test_a_damaged_torch_file_is_named(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"pytorch_model\.bin: .*(truncated or not a file of tensors|not a tensor; refused)"):
        ModelSource(str(folder))


def test_a_truncated_torch_file_is_named(folder):
    as_bin(folder, "zip")
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match=r"pytorch_model\.bin: truncated or not a file of tensors"):
        ModelSource(str(folder))


def test_without_torch_one_line_says_what_to_do(folder):
    as_bin(folder, "zip")
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "  def find_spec(self, name, path, target=None):\n"
        "    if name == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from wizardcoder_jax.config.command_line import run_command\nfrom wizardcoder_jax.convert import main\nrun_door(main)"
    )
    done = run_python("-c", code, "--model", folder, "--output", folder / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "reading .bin files needs torch: pip install torch" in done.stderr


def shard_by_hand(folder, weight_map_changes=(), twice=None):
    """Two shards under an index, which may be wrong."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    weight_map = {name: file for file, held in shards.items() for name in held}
    for file, held in shards.items():
        more = [twice] if twice is not None and twice not in held else []
        safetensors.numpy.save_file({name: tensors[name] for name in [*held, *more]}, folder / file)
    weight_map.update(weight_map_changes)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


def test_a_tensor_in_two_shards_is_named(folder):
    shard_by_hand(folder, twice=LAYER)
    with pytest.raises(InputError, match=rf"(one|two)\.safetensors: the tensor {LAYER} is (also in|not in the index)"):
        ModelSource(str(folder))


def test_a_tensor_that_is_not_where_the_index_says_is_named(folder):
    tensors = sorted(safetensors.numpy.load_file(folder / "model.safetensors"))
    wrong = "one.safetensors" if LAYER in tensors[1::2] else "two.safetensors"
    shard_by_hand(folder, {LAYER: wrong})
    with pytest.raises(InputError, match=rf"safetensors: the tensor {LAYER} is (missing, which|not in the index)"):
        ModelSource(str(folder))


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", 3, None])
def test_an_index_that_leads_out_of_the_folder_is_refused(folder, file):
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": {LAYER: file}}))
    with pytest.raises(InputError, match=r"index\.json: not an index of weight files"):
        ModelSource(str(folder))


def header_of(file):
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


HEADERS = {
    "overlap": (lambda entry: {**entry, "data_offsets": [0, entry["data_offsets"][1] - entry["data_offsets"][0]]}, "expected"),
    "negative": (lambda entry: {**entry, "shape": [-80, -32]}, "has shape"),
    "short": (lambda entry: {**entry, "shape": [80, 31]}, "5120 bytes, expected 4960"),
    "boolean": (lambda entry: {**entry, "shape": [True, 2560]}, "has shape"),
    "quantised": (lambda entry: {**entry, "dtype": "F8_E4M3"}, "is F8_E4M3, only F64, F32, F16, BF16 are supported"),
    "not an object": (lambda entry: 7, "not a safetensors file"),
    "beyond the end": (lambda entry: {**entry, "data_offsets": [10**9, 10**9 + 5120]}, r"the tensor \S+ starts at byte"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_hostile_header_is_refused_by_name(folder, kind):
    change, complaint = HEADERS[kind]
    file = folder / "model.safetensors"
    header, data = header_of(file)
    header[LAYER] = change(header[LAYER])
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    with pytest.raises(InputError, match=rf"model\.safetensors: .*{complaint}"):
        ModelSource(str(folder))


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", struct.pack("<Q", 2**63) + b"{}"])
def test_no_header_at_all_is_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: truncated or not a safetensors file"):
        ModelSource(str(folder))


def test_bytes_after_the_last_tensor_are_refused(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="4 bytes after the last tensor"):
        ModelSource(str(folder))


def test_every_bit_pattern_survives(folder, tmp_path):
    """NaNs with payloads, infinities, subnormals and negative zeros, in every kind of tensor."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    rng = np.random.default_rng(0)
    for name, tensor in tensors.items():
        patterns = rng.integers(0, 2**16, tensor.shape, np.uint16)
        tensors[name] = patterns.view(ml_dtypes.bfloat16)
    tensors[LAYER].reshape(-1)[:8] = np.array([0x7F80, 0xFF80, 0x7FC1, 0x7F81, 0xFFFF, 1, 0x8001, 0x8000], np.uint16).view(
        ml_dtypes.bfloat16
    )
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    assert_same_tensors(export(weights(folder), folder, tmp_path / "out"), folder)


def test_tensors_of_different_dtypes_keep_them_through_a_checkpoint(folder, tmp_path):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors = {name: t.astype(np.float32) if t.ndim == 1 else t for name, t in tensors.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    done = run_python("-m", "wizardcoder_jax.convert", "--model", folder, "--output", tmp_path / "checkpoint")
    assert done.returncode == 0, done.stderr
    held = open_model(str(tmp_path / "checkpoint")).weights(RULES["fsdp"], make_mesh("1x1"), None)
    assert held.model.final_norm.scale.dtype == jnp.float32 and held.model.tokens.dtype == jnp.bfloat16
    assert_same_tensors(export(held, folder, tmp_path / "out"), folder)


def test_a_tied_head_that_is_no_copy_of_the_embedding_is_refused(tmp_path):
    folder = tiny_models.save_folder(tiny_models.llama(tie_word_embeddings=True), tmp_path / "model")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"lm_head\.weight differs from the embedding"):
        weights(folder)


def test_a_changed_byte_in_an_exported_folder_is_found(folder, tmp_path):
    out = export(weights(folder), folder, tmp_path / "out")
    assert set(json.loads((out / CHECKSUM_FILE).read_text())["tensors"]) == set(tensors_of(out))
    header, data = header_of(out / "model.safetensors")
    content = bytearray((out / "model.safetensors").read_bytes())
    content[len(content) - len(data) + header[LAYER]["data_offsets"][0] + 5] ^= 1
    (out / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=f"the tensor {LAYER} is damaged"):
        weights(out)


@pytest.mark.parametrize("text", ["{", "[]", '{"algorithm": "md5", "tensors": {}}', '{"algorithm": "xxh3_128"}'])
def test_a_malformed_list_of_checksums_is_named(folder, text):
    (folder / CHECKSUM_FILE).write_text(text)
    with pytest.raises(InputError, match=r"checksums\.json"):
        ModelSource(str(folder))


def test_a_checkpoint_that_no_longer_holds_what_was_imported_is_not_exported(folder, tmp_path):
    held = weights(folder)
    norm = held.model.final_norm.scale
    norm.set_value(norm[...].at[3].add(1))
    with pytest.raises(InputError, match=r"the checkpoint is damaged: model\.norm\.weight has checksum"):
        export(held, folder, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_model_of_the_hubs_cache_is_loaded_by_its_id(folder, tmp_path, monkeypatch):
    snapshot = tmp_path / "hub/models--bigcode--tiny/snapshots/abc"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (tmp_path / "hub/models--bigcode--tiny/refs").mkdir()
    (tmp_path / "hub/models--bigcode--tiny/refs/main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = ModelSource("bigcode/tiny")
    assert source.path == str(snapshot)
    assert source.lineage == ("bigcode/tiny", "bigcode-openrail-m")
    assert_same_tensors(export(source.weights(RULES["fsdp"], make_mesh("1x1"), None), snapshot, tmp_path / "out"), snapshot)


@pytest.mark.parametrize(
    ("card", "config", "lineage"),
    [
        ("---\nlicense: mit\nbase_model: a/b\n---\n", {}, ("a/b", "mit")),
        ("---\nlicense: other\nlicense_name: deepseek\n---\n", {"_name_or_path": "x/y"}, ("x/y", "deepseek")),
        ("no header", {"_name_or_path": "codellama/CodeLlama-7b-hf"}, ("codellama/CodeLlama-7b-hf", "llama2")),
        ("---\n: [\n---\n", {"_name_or_path": "/home/me/model"}, (None, None)),
        ("---\nlicense: [mit]\nbase_model: [a/b, c/d]\n---\n", {}, (None, None)),
    ],
)
def test_base_and_licence_are_read_from_a_folder(folder, card, config, lineage):
    (folder / "README.md").write_text(card)
    whole = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**whole, **config}))
    assert ModelSource(str(folder)).lineage == lineage


MEASURED_IMPORT = """
import resource, sys
import jax
from wizardcoder_jax.hf.model_source import ModelSource
from wizardcoder_jax.core.sharding import RULES, make_mesh
mesh, source = make_mesh("1x8"), ModelSource(sys.argv[1])
jax.block_until_ready(jax.numpy.zeros(8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = source.weights(RULES["fsdp"], mesh, None).model
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024, sum(leaf.nbytes for leaf in jax.tree.leaves(model)))
"""


@pytest.mark.parametrize("kind", ["safetensors", "zip"])
def test_memory_beyond_the_model_itself_is_about_two_tensors(tmp_path, kind):
    sizes = {"vocab_size": 8192, "n_embd": 1024, "n_inner": 4096, "n_positions": 64, "n_head": 8}
    model = tiny_models.gpt_bigcode(n_layer=12, dtype=torch.bfloat16, **sizes)
    folder = tiny_models.save_folder(model, tmp_path / "model")
    if kind == "zip":
        as_bin(folder, "zip")
    done = run_python("-c", MEASURED_IMPORT, folder, num_devices=8)
    assert done.returncode == 0, done.stderr
    beyond, num_bytes = map(int, done.stdout.split())
    largest = 8192 * 1024 * 2
    assert num_bytes > 250e6
    assert beyond - num_bytes < 2.5 * largest + 300e6
    assert beyond - num_bytes < num_bytes / 2, "the model is held twice"


STORE = """
from wizardcoder_jax.core.filesystem import remote_path
import pathlib, sys
for file in pathlib.Path(sys.argv[1]).iterdir():
    remote_path(f"gs://bucket/{sys.argv[2]}/{file.name}").write_bytes(file.read_bytes())
"""


@pytest.fixture(scope="module")
def bucket():
    """Google Cloud Storage's emulator, empty."""
    server_module = pytest.importorskip("gcp_storage_emulator.server", reason="no gcp-storage-emulator; make setup-test")
    server = server_module.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    yield f"http://127.0.0.1:{server._api._httpd.server_port}"
    server.stop()


def door(name, *args):
    done = run_python("-m", f"wizardcoder_jax.{name}", *args)
    assert done.returncode == 0, done.stderr
    return done


def test_models_go_to_and_from_an_object_store(bucket, original, tmp_path, monkeypatch):
    for name, value in {
        "STORAGE_EMULATOR_HOST": bucket,
        "TENSORSTORE_GCS_HTTP_URL": bucket,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }.items():
        monkeypatch.setenv(name, value)
    assert run_python("-c", STORE, original, "model").returncode == 0
    door("convert", "--model", "gs://bucket/model", "--output", "gs://bucket/checkpoint")
    door("export", "--checkpoint", "gs://bucket/checkpoint", "--output", "gs://bucket/out", "--max-shard-size", "20KB")
    door("convert", "--model", "gs://bucket/out", "--output", tmp_path / "checkpoint")
    door("export", "--checkpoint", tmp_path / "checkpoint", "--output", tmp_path / "out")
    assert_same_tensors(tmp_path / "out", original)
    missing = run_python("-m", "wizardcoder_jax.convert", "--model", "gs://bucket/none", "--output", tmp_path / "none")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: gs://bucket/none/config.json is missing")


LIMITED_CONVERT = """
import resource, sys
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.convert import main
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
run_command(main)
"""


def test_a_full_disk_is_said_in_one_line_and_no_checkpoint_appears(original, tmp_path):
    done = run_python("-c", LIMITED_CONVERT, 15_000, "--model", original, "--output", tmp_path / "out")
    assert done.returncode == 2
    [complaint] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert complaint.startswith(f"error: {tmp_path}/out/checkpoints cannot be written (") and "File too large" in complaint
    assert not list((tmp_path / "out/checkpoints").glob("[0-9]"))
    door("convert", "--model", original, "--output", tmp_path / "out")
    assert os.listdir(tmp_path / "out/checkpoints") == ["0"]


def test_a_conversion_that_fails_leaves_the_checkpoint_that_it_was_to_replace(original, folder, tmp_path):
    door("convert", "--model", original, "--output", tmp_path / "out")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    del tensors[LAYER]
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    done = run_python("-m", "wizardcoder_jax.convert", "--model", folder, "--output", tmp_path / "out", "--overwrite")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"error: {folder}: the tensor {LAYER} is missing")
    assert open_model(str(tmp_path / "out")).arch == ModelSource(str(original)).arch
