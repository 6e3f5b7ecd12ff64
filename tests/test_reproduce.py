"""The whole loop, and the doors that it joins, on a tiny model."""

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
    """A tiny Llama folder with a chat template and room for a long prompt."""
    folder = tmp_path_factory.mktemp("base") / "model"
    tiny_models.save_folder(tiny_models.llama(max_position_embeddings=1024, vocab_size=393), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": CHAT}))
    return folder


@pytest.fixture
def preset(base, tmp_path):
    file = tmp_path / "preset.py"
    demo = REPOSITORY / "configs" / "demo"
    paths = {"output": tmp_path / "run", "seeds": demo / "seeds.jsonl", "teacher": demo / "teacher.jsonl"}
    paths |= {"base": base, "cache": tmp_path / "cache"}
    file.write_text(PRESET.format(**{name: str(path) for name, path in paths.items()}))
    return file


def test_an_interrupted_loop_resumes_and_ends_with_scores_report_and_export(preset, tmp_path):
    command = [sys.executable, "-m", "wizardcoder_jax.reproduce", "--config", str(preset)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    loop = subprocess.Popen(command, cwd=REPOSITORY, env=env, stderr=subprocess.PIPE, text=True)
    done = tmp_path / "run" / "stages" / "evaluate-base-mini-chat.done.json"
    deadline = time.monotonic() + 240
    while not done.exists() and loop.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    loop.send_signal(signal.SIGTERM)
    _, stderr = loop.communicate(timeout=60)
    assert loop.returncode == 75, stderr
    assert stderr.rstrip().splitlines()[-1].endswith("the same command resumes")
    assert not (tmp_path / "run" / "results.json").exists()

    resumed = run_python("-m", "wizardcoder_jax.reproduce", "--config", preset)
    assert resumed.returncode == 0, resumed.stderr
    assert "evaluate-base-mini-chat: done already" in resumed.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    asked = [(score["model"], score["protocol"]) for score in results["scores"]]
    v1 = "wizardcoder-humaneval-v1"
    assert asked == [("base", "chat"), ("base", v1), ("tuned", v1)]
    assert results["training"]["last"]["step"] == 4
    assert results["data"]["num_records"] == 320
    for score in results["scores"]:
        assert score["num_problems"] == 2
        low, high = score["confidence_95"]
        assert 0 <= low <= score["pass_at_1"] <= high <= 1
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| mini | tuned | wizardcoder-humaneval-v1 |" in report
    assert "<table>" in (tmp_path / "run" / "report.html").read_text()
    assert "mini, tuned, wizardcoder-humaneval-v1: pass@1" in resumed.stdout

    exported = tmp_path / "run" / "export"
    tokenizer = AutoTokenizer.from_pretrained(exported)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Add."}], tokenize=False)
    assert prompt.endswith("### Instruction:\nAdd.\n\n### Response:")
    trained = AutoModelForCausalLM.from_pretrained(exported).state_dict()
    started = AutoModelForCausalLM.from_pretrained(results["training"]["base"]).state_dict()
    assert trained.keys() == started.keys()
    assert not torch.equal(trained["model.norm.weight"], started["model.norm.weight"])


def test_convert_then_export_gives_every_tensor_back_bit_for_bit(base, tmp_path):
    checkpoint, exported = tmp_path / "checkpoint", tmp_path / "exported"
    for command in (
        ["wizardcoder_jax.convert", "--model", base, "--output", checkpoint],
        ["wizardcoder_jax.export", "--checkpoint", checkpoint, "--output", exported, "--max-shard-size", "20KB"],
    ):
        finished = run_python("-m", *command)
        assert finished.returncode == 0, finished.stderr
    assert (exported / "model.safetensors.index.json").exists()
    theirs = AutoModelForCausalLM.from_pretrained(base).state_dict()
    ours = AutoModelForCausalLM.from_pretrained(exported).state_dict()
    assert theirs.keys() == ours.keys()
    for name in theirs:
        assert torch.equal(theirs[name], ours[name]), name


def test_export_does_not_replace_a_folder_that_is_no_exported_model(base, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    finished = run_python("-m", "wizardcoder_jax.export", "--checkpoint", base, "--output", tmp_path)
    assert finished.returncode == 2
    assert "is not an exported model" in finished.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("door", ["convert", "export"])
def test_a_missing_model_is_one_clear_line(door, tmp_path):
    flag = {"convert": "--model", "export": "--checkpoint"}[door]
    finished = run_python("-m", f"wizardcoder_jax.{door}", flag, tmp_path / "absent", "--output", tmp_path / "out")
    assert finished.returncode == 2
    assert finished.stderr.strip().splitlines() == [
        f"error: no model at {tmp_path / 'absent'}; give a checkpoint, a Hugging Face folder, a .gguf file or a hub id ORG/NAME"
    ]
    assert not (tmp_path / "out").exists()
