import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.helpers import tiny_models
from tests.helpers.shared_data import DATA_DIR
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.logging_setup import configure_logging
from wizardcoder_jax.models.families.registry import read_arch, write_config

REPOSITORY = Path(__file__).parents[3]
CONFIGS = DATA_DIR / "hf_configs"

# Published parameter counts; tied tables are counted once.
PARAMETER_COUNTS = {
    "starcoder": 15_517_456_384,
    "WizardCoder-15B-V1.0": 15_517_462_528,
    "starcoderbase-7b": 7_327_263_232,
    "starcoderbase-3b": 3_043_311_104,
    "starcoderbase-1b": 1_137_207_296,
    "tiny_starcoder_py": 164_144_128,
    "gpt_bigcode-santacoder": 1_124_886_528,
    "starcoder2-3b": 3_030_371_328,
    "starcoder2-7b": 7_173_923_840,
    "starcoder2-15b": 15_957_889_024,
    "CodeLlama-7b-hf": 6_738_546_688,
    "CodeLlama-13b-hf": 13_016_028_160,
    "CodeLlama-34b-Python-hf": 33_743_970_304,
    "WizardCoder-Python-34B-V1.0": 33_743_986_688,
    "deepseek-coder-1.3b-base": 1_346_471_936,
    "deepseek-coder-6.7b-base": 6_740_512_768,
    "deepseek-coder-33b-base": 33_342_991_360,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 384,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
}
GPT_BIGCODE = {"model_type": "gpt_bigcode", "vocab_size": 384, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64}
STARCODER2 = {**LLAMA, "model_type": "starcoder2", "num_key_value_heads": 2}
QWEN2 = {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2}
MINIMAL = {config["model_type"]: config for config in (GPT_BIGCODE, STARCODER2, LLAMA, QWEN2)}
# Keys of published files that do not affect the architecture, with the values they have there.
HARMLESS = {
    "gpt_bigcode": {
        **{"attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "inference_runner": 0, "max_batch_size": None},
        **{"max_sequence_length": None, "pad_key_length": True, "pre_allocate_kv_cache": False, "n_ctx": 8192},
        **{"summary_type": "cls_index", "validate_runner_input": True, "attention_softmax_in_fp32": False},
        **{"scale_attention_softmax_in_fp32": False, "scale_attn_weights": True, "num_key_value_heads": 1, "hidden_size": 32},
    },
    "starcoder2": {
        **{"attention_dropout": 0.1, "residual_dropout": 0.1, "embedding_dropout": 0.1, "mlp_type": "default"},
        **{"norm_type": "layer_norm", "attention_softmax_in_fp32": True, "scale_attn_weights": True},
        **{"layer_types": ["full_attention"] * 2, "_note": "a copy"},
    },
    "llama": {
        **{"pretraining_tp": 2, "rope_interleaved": False, "is_llama_config": True, "_flash_attn_2_enabled": True},
        **{"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "rope_scaling": None, "mlp_bias": False},
        **{
            "unsloth_fixed": True,
            "neftune_noise_alpha": 5,
            "pad_token_id": -1,
            "max_length": 4096,
            "partial_rotary_factor": 1.0,
        },
        **{"num_experts": 0, "logit_scale": 1.0, "attn_logit_softcapping": None, "quantization_config": {}, "head_dim": None},
    },
    "qwen2": {
        **{"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 1, "use_mrope": False},
        **{"attention_dropout": 0.0, "auto_map": {}, "rope_scaling": None, "tokenizer_class": "Qwen2Tokenizer"},
        **{"scale_attn_weights": True, "position_embedding_type": "rope"},
    },
}
TRANSFORMERS_4_KEYS = {  # in PretrainedConfig.to_dict of 4.x for every model
    **{"add_cross_attention": False, "architectures": None, "bad_words_ids": None, "begin_suppress_tokens": None},
    **{"chunk_size_feed_forward": 0, "cross_attention_hidden_size": None, "decoder_start_token_id": None},
    **{"diversity_penalty": 0.0, "do_sample": False, "early_stopping": False, "encoder_no_repeat_ngram_size": 0},
    **{"exponential_decay_length_penalty": None, "finetuning_task": None, "forced_bos_token_id": None},
    **{"id2label": {"0": "LABEL_0"}, "is_decoder": False, "is_encoder_decoder": False, "label2id": {"LABEL_0": 0}},
    **{"length_penalty": 1.0, "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1},
    **{"num_beams": 1, "num_return_sequences": 1, "output_attentions": False, "output_hidden_states": False},
    **{"output_scores": False, "prefix": None, "problem_type": None, "pruned_heads": {}, "remove_invalid_values": False},
    **{"repetition_penalty": 1.0, "return_dict": True, "return_dict_in_generate": False, "sep_token_id": None},
    **{"suppress_tokens": None, "task_specific_params": None, "temperature": 1.0, "tf_legacy_loss": False},
    **{"tie_encoder_decoder": False, "tokenizer_class": None, "top_k": 50, "top_p": 1.0, "torchscript": False},
    **{"torch_dtype": "float32", "transformers_version": "4.57.1", "typical_p": 1.0, "use_bfloat16": False, "use_cache": True},
}


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


@pytest.mark.parametrize("name", PARAMETER_COUNTS)
def test_published_configs_have_the_published_parameter_counts_and_survive_a_round_trip(name, capsys):
    configure_logging()
    config = published(name)
    arch = read_arch(config, name)
    assert arch.num_params == PARAMETER_COUNTS[name]
    assert read_arch(write_config(arch, "bfloat16"), "written") == arch
    assert arch.family == config["model_type"]
    assert capsys.readouterr().err == ""  # no key was ignored


@pytest.mark.parametrize("name", PARAMETER_COUNTS)
def test_transformers_counts_the_same_parameters_for_a_config_that_we_write(name, tmp_path):
    arch = read_arch(published(name), name)
    assert num_params_in_transformers(write_config(arch, "bfloat16"), tmp_path) == arch.num_params


def test_the_table_of_parameter_counts_covers_every_shared_config():
    if not CONFIGS.is_dir():
        pytest.skip(f"no {CONFIGS}; set WIZARDCODER_DATA")
    assert {file.stem for file in CONFIGS.glob("*.json")} == set(PARAMETER_COUNTS)


def test_settings_that_change_the_computation_are_read():
    arch = read_arch(published("deepseek-coder-1.3b-base"), "deepseek")
    assert (arch.rope_scale, arch.rope_theta, arch.norm_eps, arch.tie_embeddings) == (4.0, 1e5, 1e-6, False)
    assert (arch.bos_id, arch.eos_id, arch.max_positions) == (32013, 32014, 16384)
    arch = read_arch(published("CodeLlama-34b-Python-hf"), "codellama")
    assert (arch.num_heads, arch.num_kv_heads, arch.head_dim, arch.rope_theta) == (64, 8, 128, 1e6)
    assert read_arch(published("starcoder"), "starcoder").mlp == "gelu"
    assert read_arch(published("starcoderbase-1b"), "starcoderbase-1b").mlp == "gelu_tanh"
    assert read_arch(published("WizardCoder-15B-V1.0"), "WizardCoder").vocab_size == 49153
    arch = read_arch(published("starcoder2-3b"), "starcoder2")
    assert (arch.sliding_window, arch.bias, arch.tie_embeddings, arch.rope_theta) == (4096, "all", True, 999999.4420358813)
    assert not read_arch(published("starcoder2-15b"), "starcoder2").tie_embeddings


LAYER_TYPES = {"full": ["full_attention"] * 2, "sliding": ["sliding_attention"] * 2}
WINDOW = {"use_sliding_window": True, "sliding_window": 16}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (QWEN2, {"bias": "qkv", "sliding_window": None, "tie_embeddings": False, "norm_eps": 1e-6}),
        ({**QWEN2, "sliding_window": 16}, {"sliding_window": None}),
        ({**QWEN2, **WINDOW, "max_window_layers": 0}, {"sliding_window": 16}),
        ({**QWEN2, **WINDOW, "max_window_layers": 2}, {"sliding_window": None}),
        ({**QWEN2, **WINDOW, "layer_types": LAYER_TYPES["sliding"]}, {"sliding_window": 16}),
        ({**QWEN2, **WINDOW, "layer_types": LAYER_TYPES["full"]}, {"sliding_window": None}),
        (STARCODER2, {"bias": "all", "sliding_window": None, "tie_embeddings": True, "mlp": "gelu_tanh"}),
        ({**STARCODER2, "use_bias": False, "sliding_window": 8, "hidden_act": "gelu"}, {"bias": "none", "mlp": "gelu"}),
        ({**LLAMA, "rope_theta": 500000}, {"rope_theta": 5e5, "rope_scale": 1.0, "num_kv_heads": 4}),
        ({**LLAMA, "rope_scaling": {"type": "linear", "factor": 2}, "rope_theta": 1e6}, {"rope_theta": 1e6, "rope_scale": 2.0}),
        ({**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}}, {"rope_theta": 1e5}),
        ({**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}, "rope_scaling": None}, {"rope_scale": 1.0}),
        ({**LLAMA, "eos_token_id": [7, 9], "head_dim": 16}, {"eos_id": 7, "bos_id": None, "head_dim": 16}),
        ({**GPT_BIGCODE, "multi_query": False}, {"num_kv_heads": 4, "mlp_dim": 128}),
        ({**{k: v for k, v in GPT_BIGCODE.items() if k != "n_embd"}, "hidden_size": 32}, {"embed_dim": 32, "num_kv_heads": 1}),
    ],
)
def test_defaults_and_alternative_keys_match_transformers(config, expected, tmp_path):
    arch = read_arch(config, "file")
    assert {key: getattr(arch, key) for key in expected} == expected
    assert num_params_in_transformers(config, tmp_path) == arch.num_params
    assert read_arch(write_config(arch, "float32"), "written") == arch
    assert num_params_in_transformers(write_config(arch, "float32"), tmp_path) == arch.num_params


@pytest.mark.parametrize("family", MINIMAL)
def test_harmless_keys_of_transformers_and_published_files_are_not_reported(family, capsys, tmp_path):
    configure_logging()
    arch = read_arch(MINIMAL[family], "file")
    getattr(tiny_models, family)().config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for extra in (TRANSFORMERS_4_KEYS, HARMLESS[family], {"_name_or_path": "x", "_source": "y", "dtype": "bfloat16"}):
        assert read_arch({**extra, **MINIMAL[family]}, "file") == arch
    assert read_arch(saved, "file").embed_dim == 32
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("family", MINIMAL)
def test_unknown_harmless_keys_are_logged_in_one_line(family, capsys):
    configure_logging()
    extra = {"trained_with": "care", "loss_history": [1, 2], "dataset": {"name": "evol"}, "alpha_version": 3}
    assert read_arch({**MINIMAL[family], **extra}, "config.json") == read_arch(MINIMAL[family], "config.json")
    note = (
        "config.json: ignored unknown keys that do not affect the model: trained_with, loss_history, dataset, alpha_version\n"
    )
    assert capsys.readouterr().err == note


def test_the_log_line_stays_short_for_any_keys(capsys):
    configure_logging()
    read_arch({**{f"extra\n{'x' * 500}{i}": i for i in range(1000)}, **LLAMA}, "config.json")
    note = capsys.readouterr().err
    assert note.endswith(" and 980 more\n") and note.count("\n") == 1 and len(note) < 2000


@pytest.mark.parametrize("family", MINIMAL)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("logit_scale", 0.0625), ("logits_scaling", 8.0), ("embedding_multiplier", 12.0), ("residual_multiplier", 0.22)],
        *[("attention_multiplier", 1.0), ("query_pre_attn_scalar", 256), ("attn_logit_softcapping", 50.0), ("softmaxScale", 2)],
        *[("final_logit_softcapping", 30.0), ("num_local_experts", 8), ("num_experts_per_tok", 2), ("clip_qkv", 8.0)],
        *[("alibi", True), ("qk_layernorm", True), ("use_qk_norm", True), ("rotary_pct", 0.25), ("partial_rotary_factor", 0.5)],
        *[("quantization_config", {"bits": 4}), ("per_layer_config", {"0": {"sliding_window": 4}}), ("rope_interleaved", True)],
        *[
            ("scale_attn_by_inverse_layer_idx", True),
            ("parallel_residual", True),
            ("use_attention_sinks", 4),
            ("attn.scale", 3),
        ],
        *[
            ("rms_norm_unit_offset", True),
            ("is_encoder_decoder", True),
            ("cross_attention_hidden_size", 8),
            ("moe_layers", [1]),
        ],
        *[
            ("attention_bias", 1),
            ("pruned_heads", {"0": [1]}),
            ("_attention_scale", 2.0),
            ("layer_types", ["chunked_attention"] * 2),
        ],
        *[("mup_width", 8), ("norm_topk_prob", True), ("position_embedding_type", "alibi"), ("num_experts", float("nan"))],
    ],
)
def test_a_key_that_changes_the_computation_is_rejected_by_name(family, key, value):
    with pytest.raises(InputError, match=rf"^file: {re.escape(key)}\b.* not supported") as error:
        read_arch({**MINIMAL[family], key: value}, "file")
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


ROPES = [
    ({"rope_type": "yarn", "factor": 4.0}, "rope_type='yarn' changes the computation"),
    ({"type": "dynamic", "factor": 4.0}, "type='dynamic' changes the computation"),
    ({"rope_type": "llama3", "factor": 8.0}, "rope_type='llama3' changes the computation"),
    ({"rope_type": "default", "type": "linear", "factor": 4.0}, "disagree"),
    ({"rope_type": "linear"}, "linear rope scaling needs a factor"),
    ({"factor": 4.0}, "the rope factor 4.0 is only supported with the type 'linear'"),
    ({"type": "linear", "factor": 0}, "factor=0 must be a finite number above 0"),
    ({"type": "linear", "factor": -4.0}, "factor=-4.0 must be a finite"),
    ({"type": "linear", "factor": float("nan")}, "factor=nan must be a finite"),
    ({"type": "linear", "factor": "4"}, "factor='4' must be a finite"),
    ({"type": "linear", "factor": True}, "factor=True must be a finite"),
    ({"type": "linear", "factor": 4.0, "attention_factor": 0.5}, "attention_factor=0.5 changes the computation"),
    ({"type": "linear", "factor": 4.0, "partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 changes the computation"),
    ({"type": "linear", "factor": 4.0, "mrope_section": [1, 2]}, r"mrope_section=\[1, 2\] changes the computation"),
    ({"full_attention": {"rope_theta": 1e6}}, "full_attention=.* changes the computation"),
    ({"rope_theta": 0.0}, "rope_theta=0.0 must be a finite"),
    ("linear", "='linear' must be a JSON object"),
    ([1], "must be a JSON object"),
]


@pytest.mark.parametrize("family", ["starcoder2", "llama", "qwen2"])
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(("rope", "message"), ROPES)
def test_unsupported_rope_settings_are_rejected_by_name(family, key, rope, message):
    with pytest.raises(InputError, match=f"^file: .*{message}"):
        read_arch({**MINIMAL[family], key: rope}, "file")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "unknown architecture model_type=None"),
        ({**LLAMA, "model_type": ["llama"]}, "unknown architecture"),
        ({**LLAMA, "model_type": "mistral"}, "'mistral'; known are gpt_bigcode, llama, qwen2, starcoder2"),
        ({**LLAMA, "attention_bias": True}, "attention_bias=True changes the computation"),
        ({**LLAMA, "mlp_bias": True}, "mlp_bias=True changes the computation"),
        ({**LLAMA, "hidden_act": "gelu"}, "hidden_act='gelu' changes the computation"),
        ({**LLAMA, "hidden_act": ["silu"]}, "hidden_act=.* changes the computation"),
        ({**LLAMA, "num_key_value_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({**LLAMA, "num_attention_heads": 5}, "is not a multiple of the number of heads 5"),
        ({**LLAMA, "head_dim": 7}, "even head_dim, got 7"),
        ({**LLAMA, "vocab_size": None}, "the key 'vocab_size' is missing"),
        ({k: v for k, v in LLAMA.items() if k != "intermediate_size"}, "the key 'intermediate_size' is missing"),
        ({k: v for k, v in STARCODER2.items() if k != "num_key_value_heads"}, "the key 'num_key_value_heads' is missing"),
        (
            {**GPT_BIGCODE, "activation_function": "relu"},
            "='relu' changes the computation .*'gelu_pytorch_tanh'",
        ),
        ({**GPT_BIGCODE, "scale_attn_weights": False}, "scale_attn_weights=False changes the computation"),
        ({**GPT_BIGCODE, "hidden_size": 64}, "n_embd=32 and hidden_size=64 disagree"),
        ({**GPT_BIGCODE, "num_key_value_heads": 2}, "num_key_value_heads and multi_query disagree"),
        ({**STARCODER2, "norm_type": "rms_norm"}, "norm_type='rms_norm' changes the computation"),
        ({**STARCODER2, "sliding_window": 0}, "sliding_window=0 must be a whole number from 1"),
        ({**STARCODER2, "sliding_window": 8, "layer_types": LAYER_TYPES["full"]}, "layer_types contains 'full_attention'"),
        (
            {**QWEN2, "layer_types": LAYER_TYPES["sliding"]},
            "asks for sliding_attention with use_sliding_window=False",
        ),
        ({**QWEN2, "layer_types": LAYER_TYPES["full"] * 2}, "layer_types must be a list of 2 names"),
        ({**QWEN2, "layer_types": "full_attention"}, "layer_types must be a list of 2 names"),
        ({**QWEN2, **WINDOW, "max_window_layers": 1}, "max_window_layers asks for full_attention and sliding_attention"),
        (
            {**QWEN2, **WINDOW, "layer_types": ["full_attention", "sliding_attention"]},
            "layer_types asks for full_attention and sliding_attention",
        ),
        ({**QWEN2, "use_sliding_window": True, "max_window_layers": 0}, "the key 'sliding_window' is missing"),
        ({**LLAMA, "rope_theta": 1e5, "rope_parameters": {"rope_theta": 1e6}}, "rope_theta=1000000.0 disagree"),
        (
            {**LLAMA, "rope_parameters": {"rope_theta": 1e6}, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_parameters and rope_scaling disagree",
        ),
    ],
)
def test_invalid_configs_are_rejected_with_the_reason(config, message):
    with pytest.raises(InputError, match=f"^file: .*{message}"):
        read_arch(config, "file")


COUNTS = {
    "gpt_bigcode": ["vocab_size", "n_embd", "n_head", "n_layer", "n_positions", "n_inner"],
    "starcoder2": ["hidden_size", "num_key_value_heads", "sliding_window", "head_dim"],
    "llama": ["vocab_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings"],
    "qwen2": ["num_key_value_heads", "max_window_layers"],
}
NUMBERS = [
    *[
        ("gpt_bigcode", "layer_norm_epsilon"),
        ("starcoder2", "norm_epsilon"),
        ("llama", "rms_norm_eps"),
        ("qwen2", "rms_norm_eps"),
    ],
    *[("starcoder2", "rope_theta"), ("llama", "rope_theta")],
]
FLAGS = [
    ("gpt_bigcode", "multi_query"),
    ("starcoder2", "use_bias"),
    ("llama", "tie_word_embeddings"),
    ("qwen2", "use_sliding_window"),
]


@pytest.mark.parametrize(("family", "key"), [(family, key) for family, keys in COUNTS.items() for key in keys])
@pytest.mark.parametrize("value", [True, "32", 32.0, -1, 10**30, [32], float("nan")])
def test_invalid_counts_are_rejected(family, key, value):
    with pytest.raises(InputError, match=rf"^file: {key}=.* must be a whole number from \d to \d+$"):
        read_arch({**MINIMAL[family], key: value}, "file")


@pytest.mark.parametrize(("family", "key"), NUMBERS)
@pytest.mark.parametrize("value", [True, "1e-5", 0, -1e-5, float("nan"), float("inf"), 10**400])
def test_invalid_numbers_are_rejected(family, key, value):
    with pytest.raises(InputError, match=f"^file: {key}=.* must be a finite number above 0$"):
        read_arch({**MINIMAL[family], key: value}, "file")


@pytest.mark.parametrize(("family", "key"), FLAGS)
@pytest.mark.parametrize("value", [1, 0, "true", [], 1.0])
def test_invalid_booleans_are_rejected(family, key, value):
    with pytest.raises(InputError, match=f"^file: {key}=.* must be true or false$"):
        read_arch({**MINIMAL[family], key: value}, "file")


@pytest.mark.parametrize("value", [-1, "0", True, 1.5, ["a"], [[0]], {}])
def test_invalid_token_ids_are_rejected(value):
    with pytest.raises(InputError, match=r"^file: eos_token_id=.* is not a token id$"):
        read_arch({**LLAMA, "eos_token_id": value}, "file")
