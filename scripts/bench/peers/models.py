"""The two models that the comparisons use, each with about 100 million weights."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import transformers

from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf.export_folder import export_folder
from wizardcoder_jax.hf.load_model import open_model

VOCAB = 49152
CONVERTER = Path(__file__).parents[3] / ".venv" / "llama.cpp" / "convert_hf_to_gguf.py"


def save_models(folder: Path) -> tuple[Path, Path]:
    """Write model folders of SmolLM2-135M and of a random GPTBigCode with 99 million weights and the same tokenizer."""
    opened, smollm2, bigcode = open_model("smollm2-135m-instruct"), folder / "smollm2-135m", folder / "gpt_bigcode-99m"
    export_folder(opened.weights(RULES["fsdp"], make_mesh("1x1"), None), opened.tokenizer, str(smollm2), None, 10**10)
    sizes: dict[str, Any] = {"n_embd": 768, "n_head": 12, "n_layer": 10, "n_inner": 3072, "n_positions": 2048}
    config = transformers.GPTBigCodeConfig(vocab_size=VOCAB, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, **sizes)
    transformers.GPTBigCodeForCausalLM(config).save_pretrained(bigcode)
    for file in smollm2.glob("*token*"):
        shutil.copy(file, bigcode)
    return smollm2, bigcode


def to_gguf(model: Path) -> Path:
    """Convert a model folder to a float32 GGUF file with llama.cpp's converter."""
    output = model.with_suffix(".gguf")
    command = [sys.executable, str(CONVERTER), str(model), "--outfile", str(output), "--outtype", "f32"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return output
