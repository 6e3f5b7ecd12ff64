"""The convert and export commands: transformers 4 and 5, model cards, full disks, kills, several processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.helpers import tiny_models
from tests.helpers.processes import run_python, run_together
from wizardcoder_jax import convert, export
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import WIZARDCODER_CHAT_TEMPLATE, wizardcoder_prompt
from wizardcoder_jax.hf.model_source import ModelSource

LINEAR_ROPE = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}
FAMILIES = {
    "gpt_bigcode": lambda: tiny_models.gpt_bigcode(vocab_size=393, activation_function="gelu"),
    "starcoder2": lambda: tiny_models.starcoder2(sliding_window=8),
    "llama": lambda: tiny_models.llama(rope_parameters=LINEAR_ROPE),
    "qwen2": lambda: tiny_models.qwen2(),
}
RESULTS = {
    "benchmark": "humaneval",
    "benchmark_version": "1.0",
    "protocol": "wizardcoder-humaneval-v1",
    "num_problems": 164,
    "pass_at_k": {"1": 0.598, "10": 0.7},
    "confidence_95": {"1": [0.52, 0.67], "10": [0.6, 0.8]},
}


def run_convert(*args):
    convert.main(list(map(str, args)))


def run_export(*args):
    export.main(list(map(str, args)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """For each family the folder that transformers wrote, a checkpoint, and our exported folder."""
    root = tmp_path_factory.mktemp("families")
    for family, make in FAMILIES.items():
        tiny_models.save_folder(make(), root / family / "original")
        run_convert("--model", root / family / "original", "--output", root / family / "checkpoint")
        run_export("--checkpoint", root / family / "checkpoint", "--output", root / family / "exported")
    return root


def tensors_of(folder):
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in safetensors.torch.load_file(file).items()}


def assert_same_tensors(one, other):
    one, other = tensors_of(one), tensors_of(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


IN_TRANSFORMERS_4 = """
import json, sys
import numpy, torch, transformers
assert transformers.__version__.startswith("4."), transformers.__version__
texts = json.loads(sys.argv[2])
for folder in sys.argv[3:]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text) for text in texts]
    assert all(set(entry) == {"input_ids", "attention_mask"} for entry in ids), ids
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        logits = model.eval()(torch.arange(2, 50)[None]).logits
    name = folder.strip("/").split("/")[-2]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    numpy.savez(f"{sys.argv[1]}/{name}.npz", logits=logits.numpy())
    about = {"ids": [entry["input_ids"] for entry in ids], "chat": chat, "eos": model.generation_config.eos_token_id}
    json.dump(about, open(f"{sys.argv[1]}/{name}.json", "w"))
"""
TEXTS = ["def add(a, b):\n\treturn a + b\n", "  two  spaces é 🙂\n\n", f"{tiny_models.EOS}x{tiny_models.FIM}y", ""]


def test_transformers_4_loads_exported_folders_with_the_same_logits_and_tokens(exported, tmp_path):
    overlay = Path(sys.prefix) / "transformers4"
    if not overlay.is_dir():
        pytest.skip(f"no transformers 4 in {overlay}; make setup-test installs it")
    folders = [exported / family / "exported" for family in FAMILIES]
    env = {**os.environ, "PYTHONPATH": str(overlay), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", IN_TRANSFORMERS_4, tmp_path, json.dumps(TEXTS), *folders]
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for family in FAMILIES:
        original = exported / family / "original"
        about = json.loads((tmp_path / f"{family}.json").read_text())
        tokenizer = AutoTokenizer.from_pretrained(original)
        assert about["ids"] == [tokenizer(text)["input_ids"] for text in TEXTS]
        assert about["chat"] == wizardcoder_prompt("Hi")
        assert about["eos"] == 0
        with torch.no_grad():
            expected = AutoModelForCausalLM.from_pretrained(original).eval()(torch.arange(2, 50)[None]).logits.numpy()
        np.testing.assert_allclose(np.load(tmp_path / f"{family}.npz")["logits"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_5_loads_exported_folders_with_identical_logits_and_tokens(exported, family):
    folders = exported / family / "original", exported / family / "exported"
    original, ours = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in folders)
    with torch.no_grad():
        assert torch.equal(original(torch.arange(2, 50)[None]).logits, ours(torch.arange(2, 50)[None]).logits)
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in folders]
    for text in TEXTS:
        assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]
    assert dict(tokenizers[1]("x")).keys() == {"input_ids", "attention_mask"}
    assert_same_tensors(*folders)


def test_a_tokenizer_that_adds_a_begin_of_text_token_does_so_after_export(exported, tmp_path):
    """The class LlamaTokenizer adds the token; in the exported folder tokenizer.json does."""
    source = tmp_path / "model"
    source.mkdir()
    for file in (exported / "llama/original").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    settings = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": tiny_models.EOS, "eos_token": tiny_models.EOS}
    more = {"model_max_length": 77, "padding_side": "left", "extra_special_tokens": {"fim": tiny_models.FIM}}
    (source / "tokenizer_config.json").write_text(json.dumps({**settings, **more}))
    files = ModelSource(str(source)).tokenizer.to_files()
    for name, text in files.items():
        (source / name).write_text(text)
    tokenizer = AutoTokenizer.from_pretrained(source)
    assert tokenizer("def")["input_ids"][0] == 0
    assert tokenizer("def", add_special_tokens=False)["input_ids"][0] != 0
    assert (tokenizer.model_max_length, tokenizer.padding_side) == (77, "left")
    assert tokenizer.decode(tokenizer(f"a{tiny_models.FIM}")["input_ids"], skip_special_tokens=True) == "a"
    assert ModelSource(str(source)).tokenizer.to_files() == files


def test_an_exported_folder_has_configs_tokenizer_and_model_card(exported, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    output = tmp_path / "my-wizard"
    arguments = ["--checkpoint", exported / "gpt_bigcode/checkpoint", "--output", output]
    run_export(*arguments, "--results", tmp_path / "results.json", "--dtype", "bfloat16")
    names = ["README.md", "checksums.json", "config.json", "generation_config.json", "model.safetensors"]
    assert sorted(os.listdir(output)) == [*names, "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    config = json.loads((output / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert (config["architectures"], config["n_inner"]) == (["GPTBigCodeForCausalLM"], 80)
    assert json.loads((output / "generation_config.json").read_text())["eos_token_id"] == 0
    settings = json.loads((output / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == WIZARDCODER_CHAT_TEMPLATE
    card = huggingface_hub.ModelCard.load(output / "README.md")
    scores = {(score.metric_name, score.metric_value) for score in card.data.eval_results}
    assert scores == {("pass@1", 0.598), ("pass@10", 0.7)}
    assert {score.dataset_name for score in card.data.eval_results} == {"HumanEval, protocol wizardcoder-humaneval-v1"}
    assert "license of the base model is unknown" in card.text
    assert "59.8 % | 52.0 to 67.0 %" in card.text


@pytest.mark.parametrize("content", ["{", "[]", '{"benchmark": "humaneval"}', '{"pass_at_k": 3}'])
def test_invalid_results_are_rejected(exported, tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    arguments = [
        "--checkpoint",
        exported / "llama/checkpoint",
        "--output",
        tmp_path / "out",
        "--results",
        tmp_path / "results.json",
    ]
    with pytest.raises(InputError) as error:
        run_export(*arguments)
    assert str(error.value).startswith(f"{tmp_path}/results.json: ") and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


LIMITED_EXPORT = """
import resource, sys
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.export import main
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
run_command(main)
"""


@pytest.mark.parametrize("size", [pytest.param(1000, marks=pytest.mark.slow), 30_000])
def test_a_full_disk_keeps_the_previous_export(exported, tmp_path, size):
    output, checkpoint = tmp_path / "out", exported / "gpt_bigcode/checkpoint"
    run_export("--checkpoint", checkpoint, "--output", output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    arguments = ["--checkpoint", exported / "llama/checkpoint", "--output", output, "--max-shard-size", "20KB"]
    done = run_python("-c", LIMITED_EXPORT, size, *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {output} cannot be written: ")
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert os.listdir(tmp_path) == ["out"]


def test_a_killed_export_keeps_the_previous_one_and_the_next_export_cleans_up(exported, tmp_path):
    output = tmp_path / "out"
    run_export("--checkpoint", exported / "llama/checkpoint", "--output", output)
    code = (
        "import os, signal\nfrom wizardcoder_jax.hf.safetensors_io import ShardWriter\n"
        "ShardWriter.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from wizardcoder_jax.export import main\nmain()"
    )
    done = run_python("-c", code, "--checkpoint", exported / "qwen2/checkpoint", "--output", output)
    assert done.returncode == -signal.SIGKILL
    assert_same_tensors(output, exported / "llama/original")
    run_export("--checkpoint", exported / "qwen2/checkpoint", "--output", output)
    assert_same_tensors(output, exported / "qwen2/original")
    assert os.listdir(tmp_path) == ["out"]


def run_two(*args):
    """Run a command in two processes with four devices each."""
    run_together(2, "-m", *args, num_devices=4)


def test_two_processes_convert_and_export_one_model(exported, tmp_path):
    run_two(
        "wizardcoder_jax.convert", "--model", exported / "gpt_bigcode/original", "--output", tmp_path / "ckpt", "--mesh", "2x4"
    )
    export = ["--checkpoint", tmp_path / "ckpt", "--output", tmp_path / "out", "--mesh", "2x4", "--max-shard-size", "20KB"]
    run_two("wizardcoder_jax.export", *export)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 3
    assert_same_tensors(tmp_path / "out", exported / "gpt_bigcode/original")
    assert ModelSource(str(tmp_path / "out")).checksums.keys() == tensors_of(tmp_path / "out").keys()
    run_export("--checkpoint", tmp_path / "ckpt", "--output", tmp_path / "one")
    assert_same_tensors(tmp_path / "one", exported / "gpt_bigcode/original")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_NUM_PROCESSES in the environment, but not JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, "must be integers"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID=2 must be between 0 and 1, since JAX_NUM_PROCESSES=2",
        ),
    ],
)
def test_an_incomplete_multi_process_environment_is_rejected(exported, tmp_path, monkeypatch, settings, message):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message) as error:
        run_convert("--model", exported / "llama/original", "--output", tmp_path / "out")
    assert "\n" not in str(error.value)
