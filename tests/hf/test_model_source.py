"""Model folders in all formats: torch files, shards, hostile headers, checksums, hub cache, object stores, full disks."""

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
from tests.helpers.object_store import emulated_bucket
from tests.helpers.processes import run_python
from wizardcoder_jax import convert
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
    """A folder with a tiny Llama in bfloat16."""
    model = tiny_models.llama().to(torch.bfloat16)
    return tiny_models.save_folder(model, tmp_path_factory.mktemp("llama"))


@pytest.fixture
def folder(original, tmp_path):
    """A copy of `original` for the test to change."""
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


def convert_to_bin(folder, kind):
    """Replace the safetensors file by files of torch.save."""
    tensors = tensors_of(folder)
    (folder / "model.safetensors").unlink()
    if kind != "sharded":
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "zip")
        return
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, names_in_file in shards.items():
        torch.save({name: tensors[name] for name in names_in_file}, folder / file)
    weight_map = {name: file for file, names_in_file in shards.items() for name in names_in_file}
    (folder / torch_checkpoint.INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("kind", ["zip", "legacy", "sharded"])
def test_torch_files_give_the_same_model(original, folder, kind, tmp_path):
    convert_to_bin(folder, kind)
    assert_same_tensors(export(weights(folder), folder, tmp_path / "out"), original)


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_with_code_is_rejected_and_not_run(folder, tmp_path, legacy):
    (folder / "model.safetensors").unlink()
    content = {"a": torch.zeros(2), "b": Payload(str(tmp_path / "run"))}
    torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"pytorch_model\.bin: the pickle contains (posix|os)\.mkdir, not only tensors"):
        ModelSource(str(folder))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "expected a dict of named tensors, found a list"),
        ({"model": {"a": torch.zeros(2)}}, r"found the entry 'model' \(dict\)"),
        ({"a": torch.zeros(2), "epoch": 3}, r"found the entry 'epoch' \(int\)"),
        ({1: torch.zeros(2)}, r"found the entry 1 \(Tensor\)"),
        (
            {"a": torch.zeros(2, dtype=torch.int8)},
            r"the tensor a is not supported \(dtype int8, layout torch.strided, device cpu\)",
        ),
        (
            {"a": torch.zeros(2, 2).to_sparse()},
            r"the tensor a is not supported \(dtype float32, layout torch.sparse_coo, device cpu\)",
        ),
    ],
)
def test_a_pickle_of_anything_but_named_tensors_is_rejected(folder, content, message):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=message):
        ModelSource(str(folder))


@pytest.mark.parametrize("content", [b"", b"\x80\x04}", pickle.dumps({"a": 1}), b"PK\x03\x04 no zip"])
def test_a_damaged_torch_file_is_rejected(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(
        InputError, match=r"pytorch_model\.bin: .*(truncated or not a file of tensors|expected only named tensors)"
    ):
        ModelSource(str(folder))


def test_a_truncated_torch_file_is_rejected(folder):
    convert_to_bin(folder, "zip")
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match=r"pytorch_model\.bin: truncated or not a file of tensors"):
        ModelSource(str(folder))


def test_without_torch_the_error_says_how_to_install_it(folder):
    convert_to_bin(folder, "zip")
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "  def find_spec(self, name, path, target=None):\n"
        "    if name == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from wizardcoder_jax.config.command_line import run_command\n"
        "from wizardcoder_jax.convert import main\n"
        "run_command(main)"
    )
    done = run_python("-c", code, "--model", folder, "--output", folder / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert ".bin files need torch; run: pip install torch" in done.stderr


def shard_by_hand(folder, weight_map_changes=(), twice=None):
    """Write two shards and an index, possibly with errors."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    weight_map = {name: file for file, names_in_file in shards.items() for name in names_in_file}
    for file, names_in_file in shards.items():
        more = [twice] if twice is not None and twice not in names_in_file else []
        safetensors.numpy.save_file({name: tensors[name] for name in [*names_in_file, *more]}, folder / file)
    weight_map.update(weight_map_changes)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


def test_a_tensor_in_two_shards_is_rejected(folder):
    shard_by_hand(folder, twice=LAYER)
    with pytest.raises(InputError, match=rf"(one|two)\.safetensors: the tensor {LAYER} is (also in|not in the index)"):
        ModelSource(str(folder))


def test_a_tensor_that_is_not_in_the_file_of_the_index_is_rejected(folder):
    tensors = sorted(safetensors.numpy.load_file(folder / "model.safetensors"))
    wrong = "one.safetensors" if LAYER in tensors[1::2] else "two.safetensors"
    shard_by_hand(folder, {LAYER: wrong})
    with pytest.raises(InputError, match=rf"safetensors: the tensor {LAYER} is (missing, but|not in the index)"):
        ModelSource(str(folder))


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", 3, None])
def test_an_index_with_paths_outside_the_folder_is_rejected(folder, file):
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
    "quantized": (lambda entry: {**entry, "dtype": "F8_E4M3"}, "is F8_E4M3, but only F64, F32, F16, BF16 are supported"),
    "not an object": (lambda entry: 7, "not a safetensors file"),
    "beyond the end": (lambda entry: {**entry, "data_offsets": [10**9, 10**9 + 5120]}, r"the tensor \S+ starts at byte"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_hostile_header_is_rejected(folder, kind):
    change, message = HEADERS[kind]
    file = folder / "model.safetensors"
    header, data = header_of(file)
    header[LAYER] = change(header[LAYER])
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    with pytest.raises(InputError, match=rf"model\.safetensors: .*{message}"):
        ModelSource(str(folder))


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", struct.pack("<Q", 2**63) + b"{}"])
def test_a_missing_header_is_rejected(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: truncated or not a safetensors file"):
        ModelSource(str(folder))


def test_bytes_after_the_last_tensor_are_rejected(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="4 bytes after the last tensor"):
        ModelSource(str(folder))


def test_import_and_export_keep_every_bit_pattern(folder, tmp_path):
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


def test_tensors_of_different_dtypes_keep_their_dtypes_through_a_checkpoint(folder, tmp_path):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors = {name: t.astype(np.float32) if t.ndim == 1 else t for name, t in tensors.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    run_convert("--model", folder, "--output", tmp_path / "checkpoint")
    stored = open_model(str(tmp_path / "checkpoint")).weights(RULES["fsdp"], make_mesh("1x1"), None)
    assert stored.model.final_norm.scale.dtype == jnp.float32 and stored.model.tokens.dtype == jnp.bfloat16
    assert_same_tensors(export(stored, folder, tmp_path / "out"), folder)


def test_a_tied_head_that_differs_from_the_embedding_is_rejected(tmp_path):
    folder = tiny_models.save_folder(tiny_models.llama(tie_word_embeddings=True), tmp_path / "model")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"lm_head\.weight differs from the embedding"):
        weights(folder)


def test_a_changed_byte_in_an_exported_folder_is_detected(folder, tmp_path):
    out = export(weights(folder), folder, tmp_path / "out")
    assert set(json.loads((out / CHECKSUM_FILE).read_text())["tensors"]) == set(tensors_of(out))
    header, data = header_of(out / "model.safetensors")
    content = bytearray((out / "model.safetensors").read_bytes())
    content[len(content) - len(data) + header[LAYER]["data_offsets"][0] + 5] ^= 1
    (out / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=f"the tensor {LAYER} is damaged"):
        weights(out)


@pytest.mark.parametrize("text", ["{", "[]", '{"algorithm": "md5", "tensors": {}}', '{"algorithm": "xxh3_128"}'])
def test_a_malformed_checksum_file_is_rejected(folder, text):
    (folder / CHECKSUM_FILE).write_text(text)
    with pytest.raises(InputError, match=r"checksums\.json"):
        ModelSource(str(folder))


def test_a_model_that_differs_from_the_imported_one_is_not_exported(folder, tmp_path):
    stored = weights(folder)
    norm = stored.model.final_norm.scale
    norm.set_value(norm[...].at[3].add(1))
    with pytest.raises(InputError, match=r"the checkpoint is damaged: model\.norm\.weight has checksum"):
        export(stored, folder, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_model_in_the_hub_cache_is_loaded_by_its_id(folder, tmp_path, monkeypatch):
    snapshot = tmp_path / "hub/models--bigcode--tiny/snapshots/abc"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (tmp_path / "hub/models--bigcode--tiny/refs").mkdir()
    (tmp_path / "hub/models--bigcode--tiny/refs/main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = ModelSource("bigcode/tiny")
    assert source.path == str(snapshot)
    assert source.provenance == ("bigcode/tiny", "bigcode-openrail-m")
    assert_same_tensors(export(source.weights(RULES["fsdp"], make_mesh("1x1"), None), snapshot, tmp_path / "out"), snapshot)


@pytest.mark.parametrize(
    ("card", "config", "provenance"),
    [
        ("---\nlicense: mit\nbase_model: a/b\n---\n", {}, ("a/b", "mit")),
        ("---\nlicense: other\nlicense_name: deepseek\n---\n", {"_name_or_path": "x/y"}, ("x/y", "deepseek")),
        ("no header", {"_name_or_path": "codellama/CodeLlama-7b-hf"}, ("codellama/CodeLlama-7b-hf", "llama2")),
        ("---\n: [\n---\n", {"_name_or_path": "/home/me/model"}, (None, None)),
        ("---\nlicense: [mit]\nbase_model: [a/b, c/d]\n---\n", {}, (None, None)),
    ],
)
def test_base_model_and_license_are_read_from_a_folder(folder, card, config, provenance):
    (folder / "README.md").write_text(card)
    whole = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**whole, **config}))
    assert ModelSource(str(folder)).provenance == provenance


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "zip"])
def test_import_needs_memory_for_the_model_and_about_two_tensors(tmp_path, kind):
    sizes = {"vocab_size": 8192, "n_embd": 1024, "n_inner": 4096, "n_positions": 64, "n_head": 8}
    model = tiny_models.gpt_bigcode(n_layer=12, dtype=torch.bfloat16, **sizes)
    folder = tiny_models.save_folder(model, tmp_path / "model")
    if kind == "zip":
        convert_to_bin(folder, "zip")
    done = run_python("-c", MEASURED_IMPORT, folder, num_devices=8)
    assert done.returncode == 0, done.stderr
    growth, num_bytes = map(int, done.stdout.split())
    largest = 8192 * 1024 * 2
    assert num_bytes > 250e6
    assert growth - num_bytes < 2.5 * largest + 300e6
    assert growth - num_bytes < num_bytes / 2, "the model is in memory twice"


OBJECT_STORE = """
import pathlib, sys
from wizardcoder_jax import convert, export
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import remote_path
original, root = sys.argv[1:]
for file in pathlib.Path(original).iterdir():
    remote_path(f"gs://bucket/model/{file.name}").write_bytes(file.read_bytes())
convert.main(["--model", "gs://bucket/model", "--output", "gs://bucket/checkpoint"])
export.main(["--checkpoint", "gs://bucket/checkpoint", "--output", "gs://bucket/out", "--max-shard-size", "20KB"])
convert.main(["--model", "gs://bucket/out", "--output", f"{root}/checkpoint"])
export.main(["--checkpoint", f"{root}/checkpoint", "--output", f"{root}/out"])
try:
    convert.main(["--model", "gs://bucket/none", "--output", f"{root}/none"])
except InputError as error:
    print("error:", error)
"""


def run_convert(*args):
    convert.main(list(map(str, args)))


def test_models_are_converted_and_exported_on_an_object_store(original, tmp_path):
    with emulated_bucket():
        done = run_python("-c", OBJECT_STORE, original, tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_tensors(tmp_path / "out", original)
    assert "error: gs://bucket/none/config.json is missing" in done.stdout


LIMITED_CONVERT = """
import resource, sys
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.convert import main
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
run_command(main)
"""


def test_a_full_disk_is_reported_in_one_line_and_leaves_no_checkpoint(original, tmp_path):
    done = run_python("-c", LIMITED_CONVERT, 15_000, "--model", original, "--output", tmp_path / "out")
    assert done.returncode == 2
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: {tmp_path}/out/checkpoints cannot be written (") and "File too large" in error
    assert not list((tmp_path / "out/checkpoints").glob("[0-9]"))
    run_convert("--model", original, "--output", tmp_path / "out")
    assert os.listdir(tmp_path / "out/checkpoints") == ["0"]


def test_a_failed_conversion_keeps_the_previous_checkpoint(original, folder, tmp_path):
    run_convert("--model", original, "--output", tmp_path / "out")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    del tensors[LAYER]
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError) as error:
        run_convert("--model", folder, "--output", tmp_path / "out", "--overwrite")
    assert str(error.value) == f"{folder}: the tensor {LAYER} is missing"
    assert open_model(str(tmp_path / "out")).arch == ModelSource(str(original)).arch
