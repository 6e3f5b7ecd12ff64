"""Files written by commit e79b3c1 still read, and work that it left unfinished ends as it would have ended there.

tests/fixtures/README.md says how the fixtures and the expected values were made.
"""

import json
import os
import platform
import shutil
import sqlite3
from pathlib import Path

import pytest

from wizardcoder_jax import evaluate, evolve, export, report, sample, train
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.sandbox.sandbox import Sandbox

FIXTURES = Path(__file__).parent / "fixtures" / "e79b3c1"
EXPECTED = FIXTURES / "expected"
TINY_PRESET = str(Path(__file__).parents[1] / "configs" / "tiny.py")
MODEL_TIME_NS = 1_700_000_000_000_000_000  # the model folder's modification time, part of a sampling run's identity

TRAIN = [
    *("--config", TINY_PRESET, "--base", "model", "--data", "data.jsonl"),
    *("--max-length", "64", "--num-steps", "6", "--checkpoint-every-steps", "2", "--keep-checkpoints", "2"),
    *("--batch-size", "2", "--optim.warmup-steps", "1"),
]
VALIDATION = ["--validation.fraction", "0.2", "--validation.every-steps", "2"]
LORA = ["--lora.rank", "2", "--lora.base-weights", "float32", "--optim.peak-lr", "1e-2"]
EVOLVE = [
    *("--seeds", "seeds.jsonl", "--rounds", "2", "--output-dir", "evolve"),
    *("--teacher.kind", "replay", "--teacher.replay-file", "teacher.jsonl"),
]
PROBLEMS = ["--benchmark", "humaneval", "--benchmark-file", "problems.jsonl"]
SAMPLE = [
    *("--model", "model", *PROBLEMS, "--num-samples", "2", "--temperature", "0.8"),
    *("--max-length", "128", "--batch-size", "2", "--output", "samples.jsonl"),
]
API = ["--model", "api:m", "--api.base-url", "http://127.0.0.1:9/v1", *PROBLEMS, "--output", "api.jsonl"]
EVALUATE = [
    *(*PROBLEMS, "--samples", "answers.jsonl", "--k", "1,2", "--protocol", "stored"),
    *("--timeout-s", "1", "--num-workers", "2", "--output", "results.json"),
]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """A copy of the cache; compiled programs are added to it."""
    return str(shutil.copytree(FIXTURES / "cache", tmp_path_factory.mktemp("cache"), dirs_exist_ok=True))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the fixtures as the working folder, with the unfinished work in its place."""
    shutil.copytree(FIXTURES, tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "work", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    return tmp_path


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("run", "more"), [("train", VALIDATION), ("train_lora", LORA)])
def test_a_training_run_resumes_with_the_same_losses_and_the_cached_data(folder, cache_dir, run, more):
    cached = inodes(cache_dir)
    before = read_lines(folder / run / "metrics.jsonl")
    train.main([*TRAIN, *more, "--output-dir", run, "--cache-dir", cache_dir])
    metrics, expected = (read_lines(path) for path in (folder / run / "metrics.jsonl", EXPECTED / f"{run}.metrics.jsonl"))
    assert [entry["step"] for entry in metrics] == [entry["step"] for entry in expected] == [1, 2, 3, 4, 5, 6]
    for entry, earlier in zip(metrics, before, strict=False):  # kept as they are; the last one lacks its validation loss
        assert {**entry, **earlier} == entry
    for entry, known in zip(metrics, expected, strict=True):
        assert entry.keys() == known.keys()
        measured = {"loss", "grad_norm", "lr", "validation_loss"} & known.keys()
        assert {name: entry[name] for name in measured} == pytest.approx({name: known[name] for name in measured}, rel=1e-5)
    assert inodes(cache_dir) == cached


def inodes(cache_dir):
    """The inode of each file of prepared data: another one where a file was written again."""
    return {path: path.stat().st_ino for path in Path(cache_dir, "prepared").rglob("*.*") if path.suffix != ".lock"}


@pytest.mark.parametrize("run", ["train", "train_lora"])
def test_a_checkpoint_is_exported_with_the_same_bits(folder, run):
    export.main(["--checkpoint", run, "--output", "exported"])
    assert (folder / "exported" / "model.safetensors").read_bytes() == (EXPECTED / f"{run}.safetensors").read_bytes()


def test_other_settings_than_those_of_a_checkpoint_are_still_refused(folder, cache_dir):
    with pytest.raises(InputError, match="lora"):
        train.main([*TRAIN, *LORA[2:], "--lora.rank", "3", "--output-dir", "train_lora", "--cache-dir", cache_dir])


def test_an_evolution_resumes_with_the_same_records_and_repeats_no_call(folder):
    paid = calls(folder / "evolve")
    evolve.main(EVOLVE)
    assert calls(folder / "evolve")[: len(paid)] == paid
    assert len(calls(folder / "evolve")) == json.loads((EXPECTED / "evolve_calls.json").read_text()) > len(paid) > 0
    for name in ("evolved.jsonl", "rejected.jsonl"):
        assert (folder / "evolve" / name).read_bytes() == (EXPECTED / name).read_bytes()
    assert (folder / "evolve" / "summary.json").read_text() == (EXPECTED / "summary.json").read_text()


def calls(run_dir):
    connection = sqlite3.connect(run_dir / "ledger.sqlite")
    try:
        return connection.execute("SELECT * FROM calls ORDER BY rowid").fetchall()
    finally:
        connection.close()


def test_sampling_resumes_from_its_log_and_gives_the_same_samples(folder, cache_dir, monkeypatch):
    pin_model_identity(folder, monkeypatch)
    mark = "# an answer of the earlier run"
    log = folder / ".samples.jsonl.journal"
    fingerprint, first, *others = read_lines(log)
    log.write_text("".join(json.dumps(line) + "\n" for line in [fingerprint, {**first, "raw": mark}, *others]))
    sample.main([*SAMPLE, "--cache-dir", cache_dir])
    samples, expected = read_lines(folder / "samples.jsonl"), read_lines(EXPECTED / "samples.jsonl")
    key = (first["task_id"], first["sample_index"])
    for row, known in zip(samples, expected, strict=True):
        if (row["task_id"], row["sample_index"]) == key:
            assert row.pop("raw") == mark and known.pop("raw") != mark
        assert row == known
    meta, expected = (json.loads(path.read_text()) for path in (folder / "samples.meta.json", EXPECTED / "samples.meta.json"))
    assert meta == {**expected, "cache_dir": cache_dir}
    assert not log.exists()


def pin_model_identity(folder, monkeypatch):
    """Give the model folder the path and time that it had for the earlier run, on which its log depends."""
    os.utime(folder / "model", ns=(MODEL_TIME_NS, MODEL_TIME_NS))
    real = os.path.realpath
    monkeypatch.setattr(
        os.path, "realpath", lambda path, **kinds: "/model" if os.fspath(path) == "model" else real(path, **kinds)
    )


def test_answers_paid_for_earlier_are_read_from_the_ledger_without_a_server(folder, cache_dir):
    sample.main([*API, "--api.max-attempts", "1", "--cache-dir", cache_dir])  # nobody listens on port 9
    assert (folder / "api.jsonl").read_bytes() == (EXPECTED / "api.jsonl").read_bytes()
    meta, expected = (json.loads(path.read_text()) for path in (folder / "api.meta.json", EXPECTED / "api.meta.json"))
    expected["api"]["max_attempts"] = 1
    assert meta == {**expected, "cache_dir": cache_dir}


def test_an_evaluation_resumes_from_its_log_and_gives_the_same_results(folder):
    log = folder / ".results.json.journal"
    fingerprint, *verdicts = read_lines(log)
    _, timeout, _ = fingerprint["fingerprint"].split(", ")
    assert timeout == "1.0 s"
    here = f"{Sandbox.open(unsafe=False).tier}, {timeout}, Python {platform.python_version()}"
    mark = {"seconds": 123.0}  # shows which verdicts were not computed again
    lines = [{"fingerprint": here}, *({**verdict, **mark} for verdict in verdicts)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluate.main(EVALUATE)
    results, expected = (json.loads(path.read_text()) for path in (folder / "results.json", EXPECTED / "results.json"))
    entries = [entry for problem in results["problems"].values() for entry in problem]
    assert sum(entry["seconds"] == 123.0 for entry in entries) == len(verdicts) > 0
    assert results["environment"].keys() == expected["environment"].keys()
    assert comparable(results) == comparable(expected)


def comparable(results):
    """The results without times and what depends on the machine."""
    problems = {name: [{**entry, "seconds": None} for entry in entries] for name, entries in results["problems"].items()}
    return {**results, "problems": problems, "environment": None, "sandbox": {**results["sandbox"], "tier": None}}


def test_results_and_samples_of_earlier_runs_make_a_report_page(folder):
    results = str(EXPECTED / "results.json")
    report.main(
        ["--results", results, "--samples", "answers.jsonl", "--benchmark-file", "problems.jsonl", "--output", "page.html"]
    )
    assert "T/3" in (folder / "page.html").read_text()


def test_finished_samples_of_earlier_runs_are_scored_by_the_protocol_they_name(folder):
    for name in ("samples.jsonl", "samples.meta.json"):
        shutil.copy(EXPECTED / name, folder / name)
    evaluate.main([*PROBLEMS, "--samples", "samples.jsonl", "--output", "scored.json"])
    scored = json.loads((folder / "scored.json").read_text())
    assert scored["protocol"] == "wizardcoder-humaneval-v1"
    assert scored["samples_meta"] == json.loads((EXPECTED / "samples.meta.json").read_text())
