"""The whole loop on a tiny model, and the convert and export commands."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.helpers import tiny_models
from tests.helpers.processes import REPOSITORY, run_python
from wizardcoder_jax import convert, export
from wizardcoder_jax.core.errors import InputError

CHAT = "{% for m in messages %}<|endoftext|>{{ m['content'] }}{% endfor %}"
PRESET = """
from wizardcoder_jax.config import *
config = ReproduceConfig(
    output_dir={output!r},
    evolve=EvolveConfig(seeds={seeds!r}, output_dir="unused", rounds=1,
        teacher=TeacherConfig(kind="replay", model="recorded", replay_file={teacher!r})),
    train=TrainConfig(base={base!r}, num_steps=4, batch_size=2, accumulation=1, max_length=1024, compute_dtype="float32",
        remat="none", optim=OptimConfig(peak_lr=1e-3, warmup_steps=1), checkpoint_every_steps=2, cache_dir={cache!r}),
    measurements=(Measurement(benchmark="mini", limit=2),),
    max_length=1024,
    sample_batch_size=4,
)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny Llama folder with a chat template, and enough positions for a long prompt."""
    folder = tmp_path_factory.mktemp("base") / "model"
    tiny_models.save_folder(tiny_models.llama(max_position_embeddings=1024, vocab_size=393), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": CHAT}))
    return folder


@pytest.fixture(scope="module")
def interrupted_and_resumed(base, tmp_path_factory):
    """Run the loop, stop it with SIGTERM, and resume it with the same command.

    Returns:
        The output folder, whether results existed when it was stopped, the stopped process, its stderr, the resumed process.
    """
    folder = tmp_path_factory.mktemp("loop")
    demo, preset = REPOSITORY / "configs" / "demo", folder / "preset.py"
    paths = {"output": folder / "run", "seeds": demo / "seeds.jsonl", "teacher": demo / "teacher.jsonl"}
    paths |= {"base": base, "cache": folder / "cache"}
    preset.write_text(PRESET.format(**{name: str(path) for name, path in paths.items()}))
    command = [sys.executable, "-m", "wizardcoder_jax.reproduce", "--config", str(preset)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    stopped = subprocess.Popen(command, cwd=REPOSITORY, env=env, stderr=subprocess.PIPE, text=True)
    done = folder / "run" / "stages" / "evaluate-base-mini-chat.done.json"
    deadline = time.monotonic() + 600
    while not done.exists() and stopped.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    _, stderr = stopped.communicate(timeout=300)
    had_results = (folder / "run" / "results.json").exists()
    resumed = run_python("-m", "wizardcoder_jax.reproduce", "--config", preset, timeout_s=900)
    return folder / "run", had_results, stopped, stderr, resumed


@pytest.fixture(scope="module")
def run(interrupted_and_resumed):
    """Output folder of the finished loop."""
    folder, *_, resumed = interrupted_and_resumed
    assert resumed.returncode == 0, resumed.stderr
    return folder


def test_sigterm_stops_the_loop_resumably(interrupted_and_resumed):
    _, had_results, stopped, stderr, _ = interrupted_and_resumed
    assert stopped.returncode == 75, stderr
    assert stderr.rstrip().splitlines()[-1].endswith("the same command resumes")
    assert not had_results


def test_a_resumed_loop_skips_finished_stages(interrupted_and_resumed):
    *_, resumed = interrupted_and_resumed
    assert resumed.returncode == 0, resumed.stderr
    assert "evaluate-base-mini-chat: already done" in resumed.stderr
    assert "mini, tuned, wizardcoder-humaneval-v1: pass@1" in resumed.stdout


def test_the_loop_ends_with_scores_before_and_after_training(run):
    results = json.loads((run / "results.json").read_text())
    measured = [(score["model"], score["protocol"]) for score in results["scores"]]
    v1 = "wizardcoder-humaneval-v1"
    assert measured == [("base", "chat"), ("base", v1), ("tuned", v1)]
    assert results["training"]["last"]["step"] == 4
    assert results["data"]["num_records"] == 320
    for score in results["scores"]:
        assert score["num_problems"] == 2
        low, high = score["confidence_95"]
        assert 0 <= low <= score["pass_at_1"] <= high <= 1


def test_the_loop_writes_a_markdown_and_an_html_report(run):
    assert "| mini | tuned | wizardcoder-humaneval-v1 |" in (run / "report.md").read_text()
    page = (run / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "<table>" in page and "<td>wizardcoder-humaneval-v1</td>" in page


def test_the_exported_model_was_trained_and_has_the_instruction_template(run, base):
    tokenizer = AutoTokenizer.from_pretrained(run / "export")
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Add."}], tokenize=False)
    assert prompt.endswith("### Instruction:\nAdd.\n\n### Response:")
    trained = AutoModelForCausalLM.from_pretrained(run / "export").state_dict()
    original = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert trained.keys() == original.keys()
    assert not torch.equal(trained["model.norm.weight"], original["model.norm.weight"])


def test_convert_and_export_restore_every_tensor_bit_for_bit(base, tmp_path):
    checkpoint, exported = tmp_path / "checkpoint", tmp_path / "exported"
    convert.main(["--model", str(base), "--output", str(checkpoint)])
    export.main(["--checkpoint", str(checkpoint), "--output", str(exported), "--max-shard-size", "20KB"])
    assert (exported / "model.safetensors.index.json").exists()
    original = AutoModelForCausalLM.from_pretrained(base).state_dict()
    restored = AutoModelForCausalLM.from_pretrained(exported).state_dict()
    assert original.keys() == restored.keys()
    for name in original:
        assert torch.equal(original[name], restored[name]), name


def test_export_does_not_replace_a_folder_that_is_not_an_exported_model(base, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not an exported model"):
        export.main(["--checkpoint", str(base), "--output", str(tmp_path)])
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("command", "flag"), [(convert, "--model"), (export, "--checkpoint")])
def test_a_missing_model_is_reported_in_one_line(command, flag, tmp_path):
    missing, output = tmp_path / "missing", tmp_path / "out"
    with pytest.raises(InputError) as refusal:
        command.main([flag, str(missing), "--output", str(output)])
    kinds = "a checkpoint, a Hugging Face folder, a .gguf file or a hub id ORG/NAME"
    assert str(refusal.value) == f"no model at {missing}; give {kinds}"
    assert not output.exists()
