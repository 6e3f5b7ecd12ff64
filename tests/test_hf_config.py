import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from wizardcoder_jax.errors import InputError
from wizardcoder_jax.hf.config import read_arch, write_config

REPOSITORY = Path(__file__).parent.parent
CONFIGS = Path(os.environ.get("WIZARDCODER_DATA", REPOSITORY / "../shared/data")) / "hf_configs"

# published parameter counts, tied tables counted once
PUBLISHED = {
    "starcoder": 15_517_456_384,
    "WizardCoder-15B-V1.0": 15_517_462_528,
    "starcoderbase-7b": 7_327_263_232,
    "starcoderbase-3b": 3_043_311_104,
    "starcoderbase-1b": 1_137_207_296,
    "tiny_starcoder_py": 164_144_128,
    "gpt_bigcode-santacoder": 1_124_886_528,
}
LLAMAS = [
    "CodeLlama-13b-hf",
    "CodeLlama-34b-Python-hf",
    "CodeLlama-7b-hf",
    "WizardCoder-Python-34B-V1.0",
    "deepseek-coder-1.3b-base",
    "deepseek-coder-33b-base",
    "deepseek-coder-6.7b-base",
]
LLAMA = {
    "model_type": "llama",
    "vocab_size": 384,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
}
GPT_BIGCODE = {"model_type": "gpt_bigcode", "vocab_size": 384, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64}


def published(name):
    file = CONFIGS / f"{name}.json"
    if not file.exists():
        pytest.skip(f"no {file}; set WIZARDCODER_DATA")
    return json.loads(file.read_text())


def num_params_in_transformers(config, folder):
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", [*PUBLISHED, *LLAMAS])
def test_published_configs_survive_a_round_trip(name):
    arch = read_arch(published(name), name)
    assert read_arch(write_config(arch, "bfloat16"), "ours") == arch
    assert arch.family == ("gpt_bigcode" if name in PUBLISHED else "llama")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    assert read_arch(published(name), name).num_params == PUBLISHED[name]


@pytest.mark.parametrize("name", ["starcoderbase-1b", *LLAMAS])
def test_transformers_counts_the_same_parameters_in_the_config_that_we_write(name, tmp_path):
    config = published(name)
    arch = read_arch(config, name)
    assert num_params_in_transformers(write_config(arch, "bfloat16"), tmp_path) == arch.num_params
    assert num_params_in_transformers(config, tmp_path) == arch.num_params


def test_details_that_change_the_maths_are_read():
    arch = read_arch(published("deepseek-coder-1.3b-base"), "deepseek")
    assert (arch.rope_scale, arch.rope_theta, arch.norm_eps, arch.tie_embeddings) == (4.0, 1e5, 1e-6, False)
    assert (arch.bos_id, arch.eos_id, arch.max_positions) == (32013, 32014, 16384)
    arch = read_arch(published("CodeLlama-34b-Python-hf"), "codellama")
    assert (arch.num_heads, arch.num_kv_heads, arch.head_dim, arch.rope_theta) == (64, 8, 128, 1e6)
    assert read_arch(published("starcoder"), "starcoder").mlp == "gelu"
    assert read_arch(published("starcoderbase-1b"), "starcoderbase-1b").mlp == "gelu_tanh"
    assert read_arch(published("WizardCoder-15B-V1.0"), "WizardCoder").vocab_size == 49153


@pytest.mark.parametrize("name", ["starcoder2-3b", "starcoder2-7b", "starcoder2-15b"])
def test_an_architecture_that_is_not_known_yet_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"{name}: unknown architecture model_type='starcoder2'; known: gpt_bigcode, llama"):
        read_arch(published(name), name)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({}, "unknown architecture model_type=None"),
        ({**LLAMA, "model_type": ["llama"]}, "unknown architecture"),
        ({**LLAMA, "attention_bias": True}, "attention_bias=True changes the maths"),
        ({**LLAMA, "mlp_bias": True}, "mlp_bias=True changes the maths"),
        ({**LLAMA, "hidden_act": "gelu"}, "hidden_act='gelu' changes the maths"),
        ({**LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope scaling 'yarn'"),
        ({**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope scaling 'dynamic'"),
        ({**LLAMA, "rope_scaling": "linear"}, "place"),
        ({**LLAMA, "num_key_value_heads": 3}, "num_heads 4 does not divide"),
        ({**LLAMA, "num_attention_heads": 5}, "does not divide into 5 heads"),
        ({**LLAMA, "num_attention_heads": 0}, "place"),
        ({**LLAMA, "hidden_size": "32"}, "place"),
        ({**LLAMA, "vocab_size": None}, "place"),
        ({k: v for k, v in LLAMA.items() if k != "intermediate_size"}, "the key 'intermediate_size' is missing"),
        ({**GPT_BIGCODE, "activation_function": "relu"}, "activation_function='relu' is not one of"),
        ({**GPT_BIGCODE, "scale_attn_weights": False}, "scale_attn_weights=False changes the maths"),
        ({**GPT_BIGCODE, "n_layer": 0}, "num_layers must be at least 1"),
    ],
)
def test_what_cannot_be_read_is_named(config, complaint):
    with pytest.raises(InputError, match=f"^place: .*{complaint}|^{complaint}: "):
        read_arch(config, "place")
