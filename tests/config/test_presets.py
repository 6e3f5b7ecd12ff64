"""The presets in configs/."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.helpers.processes import REPOSITORY, run_python
from tests.helpers.tiny_models import EOS, train_tokenizer
from wizardcoder_jax.config import EvolveConfig, OptimConfig, ReproduceConfig, TrainConfig
from wizardcoder_jax.config.presets import load_preset
from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.hf.import_weights import get_param
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES, tensor_mappings, write_config
from wizardcoder_jax.models.transformer import abstract_transformer

TINY_STARCODER = ArchConfig(  # bigcode/tiny_starcoder_py's config.json
    **FAMILIES["gpt_bigcode"].arch_fields,
    vocab_size=49152,
    embed_dim=768,
    num_layers=20,
    num_heads=12,
    num_kv_heads=1,
    head_dim=64,
    mlp_dim=3072,
    max_positions=8192,
    norm_eps=1e-5,
    mlp="gelu_tanh",
    tie_embeddings=True,
    bos_id=0,
    eos_id=0,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tiny", TrainConfig),
        ("demo", ReproduceConfig),
        ("tiny_starcoder", ReproduceConfig),
        ("wizardcoder_15b", TrainConfig),
        ("wizardcoder_15b_original", TrainConfig),
        ("qlora_15b", TrainConfig),
        ("evolve_wizardcoder", EvolveConfig),
        ("evolve_improved", EvolveConfig),
        ("evolve_snippets", EvolveConfig),
    ],
)
def test_every_preset_loads(name, kind):
    assert type(load_preset(str(REPOSITORY / "configs" / f"{name}.py"), kind)) is kind


def test_train_without_flags_has_the_settings_of_the_15b_preset_except_those_of_its_slice():
    preset = load_preset(str(REPOSITORY / "configs" / "wizardcoder_15b.py"), TrainConfig)
    assert preset == TrainConfig(mesh="4x8", accumulation=4, remat="offload_up")
    assert (preset.num_steps, preset.batch_size, preset.max_length) == (200, 512, 2048)
    assert preset.optim == OptimConfig(peak_lr=2e-5, warmup_steps=30, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0)


@pytest.fixture(scope="module")
def tiny_starcoder(tmp_path_factory):
    """A folder with tiny_starcoder_py's real shapes, bfloat16, random weights."""
    folder = tmp_path_factory.mktemp("tiny_starcoder")
    rng, model, tensors = np.random.default_rng(0), abstract_transformer(TINY_STARCODER, RULES["fsdp"]), {}
    for mapping in tensor_mappings(TINY_STARCODER):
        shapes = [get_param(model, path).shape[1 if mapping.per_layer else 0 :] for path in mapping.params]
        for i in range(TINY_STARCODER.num_layers if mapping.per_layer else 1):
            shape = mapping.pattern.hf_shape(shapes, TINY_STARCODER)
            tensors[mapping.hf_name.format(i=i)] = (0.02 * rng.standard_normal(shape, np.float32)).astype(ml_dtypes.bfloat16)
    assert sum(tensor.size for tensor in tensors.values()) == 164_144_128
    assert tensors["transformer.h.0.attn.c_attn.weight"].shape == (896, 768)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(write_config(TINY_STARCODER, "bfloat16")))
    train_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}))
    return folder


@pytest.mark.slow
def test_the_tiny_starcoder_preset_trains_a_folder_of_the_real_shapes(tiny_starcoder, tmp_path):
    data = tmp_path / "data.json"
    data.write_text(json.dumps([{"instruction": "Add.", "input": "1, 2", "output": "1 + 2"}] * 2))
    small = ["--num-steps", 1, "--batch-size", 1, "--max-length", 256, "--cache-dir", tmp_path / "cache"]
    paths = ["--base", tiny_starcoder, "--data", data, "--output-dir", tmp_path / "run"]
    finished = run_python("-m", "wizardcoder_jax.train", "--config", "configs/tiny_starcoder.py", *paths, *small)
    assert finished.returncode == 0, finished.stderr
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert np.isfinite(json.loads(line)["loss"])
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()
