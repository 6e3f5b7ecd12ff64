"""The `sample` command with a local model."""

import json
import sys

import pytest

from tests.helpers import tiny_models
from tests.helpers.processes import run_python
from wizardcoder_jax import sample
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.core.resume_log import ResumeLog

# Runs `sample`, and kills the process right after it has recorded a number of answers.
KILLED_RUN = """
import os, signal, sys
from wizardcoder_jax.core.resume_log import ResumeLog
from wizardcoder_jax.sample import main
append = ResumeLog.append
def append_and_die(self, record):
    append(self, record)
    if len(self.records) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
ResumeLog.append = append_and_die
main(sys.argv[2:])
"""
SEVERAL_RUNS = """
import json, sys
from wizardcoder_jax.sample import main
for arguments in json.load(open(sys.argv[1])):
    main(arguments)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    tiny_models.save_folder(tiny_models.gpt_bigcode(vocab_size=393), folder / "model")
    lines = [{"instruction": f"Add {i} numbers.", "id": f"p{i}"} for i in range(6)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def arguments(folder, output, *more):
    paths = ["--model", folder / "model", "--output", output, "--cache-dir", folder / "cache"]
    return [str(part) for part in [*paths, "--max-length", "120", *more]]


def sampled_arguments(folder, output, *more):
    options = ["--num-samples", "2", "--temperature", "0.8", "--top-p", "0.95", "--batch-size", "3"]
    return arguments(folder, output, "--prompts", folder / "prompts.jsonl", *options, *more)


@pytest.fixture(scope="module")
def whole(folder):
    sample.main(sampled_arguments(folder, folder / "whole.jsonl"))
    return folder / "whole.jsonl"


def test_the_samples_and_their_settings_are_written(whole):
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [(row["task_id"], row["sample_index"]) for row in rows] == [(f"p{i}", j) for i in range(6) for j in range(2)]
    for row in rows:
        assert set(row) == {"task_id", "sample_index", "completion", "raw", "num_tokens", "finish_reason"}
        assert row["completion"] == row["raw"]
        assert row["finish_reason"] in ("stop", "length")
        assert row["num_tokens"] > 0 or row["finish_reason"] == "stop"
    meta = json.loads((whole.parent / "whole.meta.json").read_text())
    settings = {name: meta[name] for name in ("seed", "temperature", "top_p", "max_length", "num_samples", "protocol")}
    assert settings == {"seed": 0, "temperature": 0.8, "top_p": 0.95, "max_length": 120, "num_samples": 2, "protocol": None}
    assert meta["model"] == str(whole.parent / "model")
    assert not list(whole.parent.glob(".*"))


def test_log_probabilities_are_written_on_request(folder, whole, tmp_path):
    sample.main(sampled_arguments(folder, tmp_path / "logprobs.jsonl", "--logprobs", "2"))
    plain = [json.loads(line) for line in whole.read_text().splitlines()]
    rows = [json.loads(line) for line in (tmp_path / "logprobs.jsonl").read_text().splitlines()]
    for row, expected in zip(rows, plain, strict=True):
        assert {name: row[name] for name in expected} == expected
        assert len(row["tokens"]) == len(row["logprobs"]) == len(row["likeliest"]) == row["num_tokens"]
        for own, ((_, first), (_, second)) in zip(row["logprobs"], row["likeliest"], strict=True):
            assert own <= first <= 0 and second <= first


@pytest.mark.parametrize(
    "more", [["--top-k", "3"], ["--min-p", "0.5"], ["--repetition-penalty", "2"], ["--top-k", "1", "--temperature", "2"]]
)
def test_every_sampling_option_changes_answers_and_only_top_k_1_makes_them_equal(folder, whole, tmp_path, more):
    sample.main(sampled_arguments(folder, tmp_path / "other.jsonl", *more))
    assert (tmp_path / "other.jsonl").read_bytes() != whole.read_bytes()
    texts = [json.loads(line)["raw"] for line in (tmp_path / "other.jsonl").read_text().splitlines()]
    assert all((a == b) == ("1" in more) for a, b in zip(texts[::2], texts[1::2], strict=True))


def test_prompts_in_the_format_of_the_original_script_are_read(folder, whole, tmp_path):
    lines = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    theirs = [{"idx": line["id"], "Instruction": line["instruction"]} for line in lines]
    (tmp_path / "theirs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in theirs))
    same = sampled_arguments(folder, tmp_path / "same.jsonl")
    same[same.index("--prompts") + 1] = str(tmp_path / "theirs.jsonl")
    sample.main(same)
    assert (tmp_path / "same.jsonl").read_bytes() == whole.read_bytes()


def test_a_limit_selects_the_first_prompts(folder, whole, tmp_path):
    sample.main(sampled_arguments(folder, tmp_path / "few.jsonl", "--limit", "2"))
    assert (tmp_path / "few.jsonl").read_text().splitlines() == whole.read_text().splitlines()[:4]


def test_an_interrupted_run_resumes_to_the_same_bytes(folder, whole, tmp_path, monkeypatch):
    append = ResumeLog.append

    def append_and_stop(self, record):
        append(self, record)
        if len(self.records) == 5:
            raise KeyboardInterrupt

    args = sampled_arguments(folder, tmp_path / "samples.jsonl")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ResumeLog, "append", append_and_stop)
        sample.main(args)
    assert [path.name for path in tmp_path.iterdir()] == [".samples.jsonl.journal"]
    sample.main(args)
    assert (tmp_path / "samples.jsonl").read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.jsonl", "samples.meta.json"]


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(folder, whole, tmp_path):
    args = sampled_arguments(folder, tmp_path / "samples.jsonl")
    killed = run_python("-c", KILLED_RUN, 5, *args)
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert [path.name for path in tmp_path.iterdir()] == [".samples.jsonl.journal"]
    sample.main(args)
    assert (tmp_path / "samples.jsonl").read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.jsonl", "samples.meta.json"]


def test_the_seed_changes_answers_but_the_batch_size_does_not(folder, whole, tmp_path):
    sample.main(sampled_arguments(folder, tmp_path / "same.jsonl", "--batch-size", "8"))
    assert (tmp_path / "same.jsonl").read_bytes() == whole.read_bytes()
    sample.main(sampled_arguments(folder, tmp_path / "other.jsonl", "--seed", "1"))
    assert (tmp_path / "other.jsonl").read_bytes() != whole.read_bytes()


@pytest.mark.slow
def test_a_2x4_mesh_gives_the_greedy_answers_of_one_device(folder, tmp_path):
    runs = [
        arguments(
            folder,
            tmp_path / f"{mesh}.jsonl",
            "--prompts",
            folder / "prompts.jsonl",
            "--mesh",
            mesh,
            "--batch-size",
            "4",
            "--max-length",
            "100",
        )
        for mesh in ("1x1", "2x4")
    ]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    done = run_python("-c", SEVERAL_RUNS, tmp_path / "runs.json", num_devices=8)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "1x1.jsonl").read_bytes() == (tmp_path / "2x4.jsonl").read_bytes()


def test_a_benchmark_is_sampled_with_its_protocol(folder, tmp_path):
    problem = {"task_id": "T/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n", "test": ""}
    (tmp_path / "problems.jsonl").write_text(json.dumps({**problem, "test": "def check(candidate):\n    pass\n"}) + "\n")
    more = ["--benchmark", "humaneval", "--benchmark-file", tmp_path / "problems.jsonl"]
    sample.main(arguments(folder, tmp_path / "samples.jsonl", *more))
    [row] = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert (row["task_id"], row["sample_index"]) == ("T/0", 0)
    assert json.loads((tmp_path / "samples.meta.json").read_text())["protocol"] == "wizardcoder-humaneval-v1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--benchmark", "no-such"], "no-such"),
        (["--prompts", "{folder}/none.jsonl"], "cannot read"),
        (["--prompts", "{folder}/bad.jsonl"], 'bad.jsonl:1: the key "instruction" is missing or not a string'),
        (["--prompts", "{folder}/empty.jsonl"], "empty.jsonl contains no prompt"),
        (["--prompts", "{folder}/prompts.jsonl", "--max-length", "20"], "the prompt of p0 has "),
        (["--prompts", "{folder}/prompts.jsonl", "--max-length", "300"], "max_length 300 exceeds the model's 256 positions"),
        (["--prompts", "{folder}/prompts.jsonl", "--model", "/nowhere"], "no model at /nowhere"),
        (["--prompts", "{folder}/prompts.jsonl", "--mesh", "2x2"], "mesh 2x2 needs 4 devices, this run has 1"),
        (["--prompts", "{folder}/prompts.jsonl", "--output", "{folder}/prompts.jsonl/x"], "cannot create the folder"),
        (["--prompts", "{folder}/prompts.jsonl", "--num-samples", "2"], "temperature 0 would give 2 equal answers"),
        (["--benchmark", "mini", "--protocol", "chat"], "this model has no chat template"),
        (["--prompts", "{folder}/prompts.jsonl", "--top-k", "0"], "top_k must be at least 1, got 0"),
        (["--prompts", "{folder}/prompts.jsonl", "--min-p", "1.5"], "min_p must be in [0, 1], got 1.5"),
        (["--prompts", "{folder}/prompts.jsonl", "--repetition-penalty", "0"], "repetition_penalty must be > 0, got 0"),
        (["--prompts", "{folder}/prompts.jsonl", "--logprobs", "21"], "logprobs must be in 0 to 20, got 21"),
        (["--prompts", "{folder}/prompts.jsonl", "--model", "api:m", "--logprobs", "1"], "not available for --model api:NAME"),
        ([], "give either --benchmark NAME or --prompts FILE"),
    ],
)
def test_a_bad_setting_is_reported_in_one_line_and_leaves_no_file(folder, monkeypatch, capsys, tmp_path, options, message):
    (folder / "bad.jsonl").write_text('{"text": "a"}\n')
    (folder / "empty.jsonl").write_text("")
    options = [part.replace("{folder}", str(folder)) for part in options]
    monkeypatch.setattr(sys, "argv", ["sample", *arguments(folder, tmp_path / "out.jsonl", *options)])
    with pytest.raises(SystemExit) as stop:
        run_command(sample.main)
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []
