import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.evolve_runs import (
    JSON,
    KEY,
    NUM_SEEDS,
    arguments,
    read_jsonl,
    read_outputs,
    run_process,
    write_seeds,
)
from tests.helpers.loopback_teacher import LoopbackTeacher, answer, chat_body
from wizardcoder_jax import evolve
from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.config.presets import load_preset
from wizardcoder_jax.core.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def seeds(tmp_path):
    return write_seeds(tmp_path)


def test_evolved_jsonl_has_the_seeds_and_all_rounds_in_a_fixed_order(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "out"))
    records, rejected = (read_jsonl(tmp_path / "out" / name) for name in ("evolved.jsonl", "rejected.jsonl"))
    assert list(records[0]) == [
        *("id", "parent_id", "seed_id", "round", "method", "instruction", "output", "teacher", "usage", "filters"),
        *("task", "language", "call_ids"),
    ]
    assert list(rejected[0]) == [*records[0], "rule", "evidence"]
    order = {record["id"]: i for i, record in enumerate(records[:NUM_SEEDS])}
    positions = [(record["round"], order[record["seed_id"]]) for record in records]
    assert positions == sorted(positions) and len(order) == NUM_SEEDS
    by_round = [read_jsonl(tmp_path / "out" / "rounds" / f"round-0{n}.jsonl") for n in range(3)]
    assert [record for part in by_round for record in part] == records
    assert [len(part) for part in by_round] == [
        NUM_SEEDS,
        *(NUM_SEEDS - sum(r["round"] == n for r in rejected) for n in (1, 2)),
    ]
    assert {record["rule"] for record in rejected} == {"sorry", "truncated", "no_information_gain"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["num_duplicate_seeds"] == 1
    assert summary["num_calls"] == len(server.requests)
    assert summary["usage"]["prompt_tokens"] == sum(len(r["messages"][0]["content"].split()) for r in server.requests)
    evolved = [record for record in records if record["round"] == 2]
    assert all(record["instruction"].count("Also handle case") in (1, 2) for record in evolved)


def test_outputs_do_not_depend_on_concurrency_and_a_rerun_makes_no_call(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "one", concurrency=1))
        num_calls = len(server.requests)
        expected = read_outputs(tmp_path / "one")
        evolve.main(arguments(server, seeds, tmp_path / "eight", concurrency=8))
        assert read_outputs(tmp_path / "eight") == expected
        assert len(server.requests) == 2 * num_calls
        evolve.main(arguments(server, seeds, tmp_path / "one", concurrency=8))
        assert read_outputs(tmp_path / "one") == expected
        assert len(server.requests) == 2 * num_calls


def test_overwrite_repeats_all_calls(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "out", "--rounds", "1"))
        num_calls = len(server.requests)
        evolve.main(arguments(server, seeds, tmp_path / "out", "--rounds", "1", "--overwrite"))
        assert len(server.requests) == 2 * num_calls


def test_a_rerun_with_fewer_rounds_removes_the_files_of_the_other_rounds(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "out"))
        evolve.main(arguments(server, seeds, tmp_path / "out", "--rounds", "1"))
    assert sorted(path.name for path in (tmp_path / "out" / "rounds").iterdir()) == ["round-00.jsonl", "round-01.jsonl"]


def test_a_record_too_long_for_the_teacher_is_rejected_alone(seeds, tmp_path):
    too_long = b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'
    with LoopbackTeacher([(200, JSON, chat_body("x" * 5000)), None, (400, JSON, too_long)]) as server:
        evolve.main(arguments(server, seeds, tmp_path / "out", "--rounds", "1", concurrency=1))
        num_calls = len(server.requests)
        evolve.main(arguments(server, seeds, tmp_path / "out", "--rounds", "1", concurrency=1))
        assert len(server.requests) == num_calls
    rejected = [entry for entry in read_jsonl(tmp_path / "out" / "rejected.jsonl") if len(entry["instruction"]) == 5000]
    assert [entry["rule"] for entry in rejected] == ["empty"]


def test_a_wrong_key_gives_one_error_line_and_status_2(seeds, tmp_path):
    with LoopbackTeacher([(401, JSON, b"no")]) as server:
        done = run_process(*arguments(server, seeds, tmp_path / "out", concurrency=1))
        assert len(server.requests) == 1
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_the_key_is_in_no_output(seeds, tmp_path, capfd):
    with LoopbackTeacher(
        [(200, JSON, chat_body(f"Use {KEY} to sort.")), (500, {"Retry-After": "0.01"}, KEY.encode())]
    ) as server:
        evolve.main(arguments(server, seeds, tmp_path / "out"))
    assert server.authorizations == [f"Bearer {KEY}"] * len(server.requests)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) >= 9
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path
    captured = capfd.readouterr()
    assert KEY not in captured.out + captured.err


def test_the_cost_estimate_is_logged_before_the_first_call(seeds, tmp_path, capfd):
    with LoopbackTeacher([(401, JSON, b"")] * 9) as server, pytest.raises(InputError):
        evolve.main(arguments(server, seeds, tmp_path / "out"))
    assert f"at most {NUM_SEEDS * 2 * 3} calls" in capfd.readouterr().err


def test_invalid_names_and_token_counts_from_a_server_do_not_stop_the_run(seeds, tmp_path):
    odd = json.loads(chat_body("def f(): pass", usage={"prompt_tokens": 10**400, "completion_tokens": 2}))
    odd["model"] = "m\ud800"
    with LoopbackTeacher([(200, JSON, json.dumps(odd).encode())] * 30) as server:
        evolve.main(arguments(server, seeds, tmp_path / "out", "--exports", "parquet"))
    assert "m?" in {entry["teacher"] for entry in read_jsonl(tmp_path / "out" / "evolved.jsonl")}


def test_a_malformed_seed_is_reported_in_one_line_and_nothing_is_written(tmp_path):
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"instruction": "A", "output": "b"}\n{"prompt": "A", "output": "b"}\n')
    done = run_process("--seeds", path, "--output-dir", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: {path}:2: no field "instruction"') and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_records_with_a_benchmark_problem_are_rejected_with_evidence(seeds, tmp_path):
    problem = "Write function number 3. Return the largest divisor of n that is smaller than its square root."
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "b.jsonl").write_text(json.dumps({"task_id": "B/3", "prompt": problem}) + "\n")
    with seeds.open("a") as file:
        file.write(json.dumps({"instruction": problem.upper(), "output": "x"}) + "\n")
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "out", "--benchmarks-dir", str(tmp_path / "benchmarks")))
        assert not any("LARGEST" in request["messages"][0]["content"] for request in server.requests)
    rejected = [entry for entry in read_jsonl(tmp_path / "out" / "rejected.jsonl") if entry["rule"] == "contaminated"]
    assert [entry["round"] for entry in rejected] == [0] and "B/3" in rejected[0]["evidence"]
    card = (tmp_path / "out" / "data_card.md").read_text()
    assert "1 records dropped because they share text with one of 1 benchmark" in card


def test_a_replayed_run_equals_the_recorded_run(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "live"))
    lines = []
    for request in server.requests:
        text, finish_reason = answer(request["messages"][0]["content"])
        usage = {"prompt_tokens": len(request["messages"][0]["content"].split()), "completion_tokens": len(text.split())}
        line = {"messages": request["messages"], "content": text, "finish_reason": finish_reason, "usage": usage}
        lines.append(json.dumps({**line, "model": "loopback-1"}) + "\n")
    (tmp_path / "calls.jsonl").write_text("".join(lines))
    replay = ["--teacher.kind", "replay", "--teacher.replay-file", str(tmp_path / "calls.jsonl")]
    evolve.main(["--seeds", str(seeds), "--output-dir", str(tmp_path / "replayed"), "--rounds", "2", *replay])
    for name in ("evolved.jsonl", "rejected.jsonl"):
        replayed, live = (
            [{**entry, "call_ids": None} for entry in read_jsonl(tmp_path / run / name)] for run in ("replayed", "live")
        )
        assert replayed == live


@pytest.mark.parametrize("folder", ["gs://bucket/out", "/dev/null/out"])
def test_a_folder_that_cannot_have_a_ledger_is_refused(seeds, folder):
    with pytest.raises(InputError, match=r"must be local|cannot make|cannot create"):
        evolve.main(["--seeds", str(seeds), "--output-dir", folder])


def test_evolve_runs_without_importing_jax_or_tensorflow(seeds, tmp_path):
    script = (
        "import sys; from wizardcoder_jax import evolve\n"
        "try: evolve.main(sys.argv[1:])\n"
        "finally: print(sorted({'jax', 'tensorflow', 'torch', 'flax'} & set(sys.modules)))"
    )
    with LoopbackTeacher() as server:
        command = [sys.executable, "-c", script, *arguments(server, seeds, tmp_path / "out")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"


def test_the_preset_has_the_settings_of_the_paper():
    config = load_preset(str(ROOT / "configs" / "evolve_wizardcoder.py"), EvolveConfig)
    teacher = config.teacher
    assert (config.rounds, config.judge_information_gain) == (3, True)
    assert (teacher.model, teacher.temperature, teacher.top_p, teacher.max_tokens) == ("gpt-3.5-turbo", 1.0, 0.95, 2048)
