"""Exported folders in llama.cpp's converter, which `make setup-test` downloads (or from the folder LLAMA_CPP).

The converter only accepts known tokenizers, which it recognizes by a hash of the ids of a test text. The tiny models therefore
use the tokenizer of the embedded model, rebuilt from its GGUF file, which is known as "smollm". That the unmodified converter
recognizes it also shows that our rebuilt tokenizer gives the published ids for that text.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.helpers import tiny_models
from tests.helpers.many_texts import many_texts
from wizardcoder_jax import export
from wizardcoder_jax.hf.gguf import GgufFile
from wizardcoder_jax.hf.gguf_tokenizer import build_tokenizer, read_vocabulary
from wizardcoder_jax.hf.model_source import EMBEDDED, ModelSource

CONVERTER = Path(os.environ.get("LLAMA_CPP", Path(__file__).parents[2] / ".venv" / "llama.cpp"), "convert_hf_to_gguf.py")
PACKAGE, _ = EMBEDDED["smollm2-135m-instruct"]
pytestmark = [
    pytest.mark.skipif(not CONVERTER.exists(), reason="no llama.cpp; make setup-test fetches its converter, or set LLAMA_CPP"),
    pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"no {PACKAGE}; make setup installs it"),
]
STARCODER = {  # GGUF name -> Hugging Face name
    "token_embd.weight": "transformer.wte.weight",
    "position_embd.weight": "transformer.wpe.weight",
    **{f"output_norm.{part}": f"transformer.ln_f.{part}" for part in ("weight", "bias")},
    **{
        f"blk.{i}.{theirs}.{part}": f"transformer.h.{i}.{ours}.{part}"
        for i in range(2)
        for part in ("weight", "bias")
        for theirs, ours in {
            **{"attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj"},
            **{"ffn_norm": "ln_2", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        }.items()
    },
}


def convert(folder, output):
    command = [sys.executable, str(CONVERTER), str(folder), "--outfile", str(output), "--outtype", "f32"]
    return subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=300)


def exported(model, tokenizer_files, folder):
    """Export `model` (of transformers) with a tokenizer; return the folder."""
    model.save_pretrained(folder / "source")
    for name, text in tokenizer_files.items():
        (folder / "source" / name).write_text(text)
    export.main(["--checkpoint", str(folder / "source"), "--output", str(folder / "exported")])
    return folder / "exported"


def read(path):
    """Read metadata and tensors with the gguf package."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: t.data.reshape([int(dim) for dim in reversed(t.shape)]) for t in reader.tensors}
    return {key: field.contents() for key, field in reader.fields.items()}, tensors


@pytest.fixture(scope="module")
def tokenizer():
    return ModelSource("smollm2-135m-instruct").tokenizer


def test_an_exported_gpt_bigcode_model_can_be_converted(tokenizer, tmp_path):
    theirs = tiny_models.gpt_bigcode(vocab_size=49152, n_inner=128, eos_token_id=2, bos_token_id=1)
    folder = exported(theirs, tokenizer.to_files(), tmp_path)
    done = convert(folder, tmp_path / "model.gguf")
    assert done.returncode == 0, done.stderr
    metadata, tensors = read(tmp_path / "model.gguf")
    weights = theirs.state_dict()
    assert set(tensors) == set(STARCODER)
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, weights[STARCODER[name]].numpy(), err_msg=name)
    sizes = {"block_count": 2, "embedding_length": 32, "feed_forward_length": 128, "context_length": 256}
    sizes |= {"attention.head_count": 4, "attention.head_count_kv": 1}
    assert {key: metadata[f"starcoder.{key}"] for key in sizes} == sizes
    assert metadata["tokenizer.ggml.pre"] == "smollm"
    rebuilt = build_tokenizer(read_vocabulary(metadata, "model.gguf"), "model.gguf")
    assert [rebuilt.encode(text) for text in many_texts([])] == [tokenizer.encode(text) for text in many_texts([])]


def test_an_exported_and_converted_llama_model_is_imported_unchanged(tokenizer, tmp_path):
    theirs = tiny_models.llama(vocab_size=49152, eos_token_id=2, bos_token_id=1, tie_word_embeddings=False)
    done = convert(exported(theirs, tokenizer.to_files(), tmp_path), tmp_path / "model.gguf")
    assert done.returncode == 0, done.stderr
    again, before = ModelSource(str(tmp_path / "model.gguf")), ModelSource(str(tmp_path / "source"))
    assert again.arch == before.arch
    assert again.tokenizer.fingerprint == tokenizer.fingerprint
    file, weights = GgufFile(str(tmp_path / "model.gguf")), theirs.state_dict()
    assert set(file.names()) == set(weights)
    for name in file.names():
        np.testing.assert_array_equal(file.read(name), weights[name].numpy(), err_msg=name)


def test_the_converter_rejects_an_unknown_tokenizer(tmp_path):
    """A limitation of the converter that the documentation mentions."""
    files = {"tokenizer.json": tiny_models.train_tokenizer().to_str()}
    files["tokenizer_config.json"] = f'{{"eos_token": "{tiny_models.EOS}"}}'
    done = convert(exported(tiny_models.gpt_bigcode(n_inner=128), files, tmp_path), tmp_path / "model.gguf")
    assert done.returncode != 0
    assert "BPE pre-tokenizer was not recognized" in done.stderr
