import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.loopback_teacher import LoopbackTeacher, answer, chat_body
from wizardcoder_jax import evolve
from wizardcoder_jax.config import EvolveConfig
from wizardcoder_jax.config.presets import load_preset
from wizardcoder_jax.core.errors import InputError, StoppedEarlyError
from wizardcoder_jax.llm_client.ordered_map import concurrent_steps

ROOT = Path(__file__).parents[1]
KEY = "sk-loopback-0123456789abcdef"
NUM_SEEDS = 24
OUTPUTS = ("evolved.jsonl", "rejected.jsonl", "data_card.md", "summary.json")
JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def seeds(tmp_path):
    path = tmp_path / "seeds.jsonl"
    lines = [{"instruction": f"Write function number {i}.", "input": "", "output": f"f{i}"} for i in range(NUM_SEEDS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]))
    return path


def arguments(server, seeds, folder, *more, concurrency=4):
    return [
        *("--seeds", str(seeds), "--output-dir", str(folder), "--rounds", "2"),
        *("--teacher.base-url", server.base_url, "--teacher.concurrency", str(concurrency), *more),
    ]


def outputs(folder):
    """The bytes of everything a run derives; the settings and the ledger are its inputs."""
    rounds = {path.name: path.read_bytes() for path in (folder / "rounds").iterdir()}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["teacher"]["base_url"].startswith("http://127.0.0.1")
    return {name: (folder / name).read_bytes() for name in OUTPUTS} | rounds


def ledger_rows(folder):
    connection = sqlite3.connect(folder / "ledger.sqlite")
    try:
        return connection.execute("SELECT COUNT(*), TOTAL(usd) FROM calls").fetchone()
    finally:
        connection.close()


def read(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def test_seeds_and_all_rounds_are_the_training_data_in_a_fixed_order(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "out"))
    records, rejected = read(tmp_path / "out" / "evolved.jsonl"), read(tmp_path / "out" / "rejected.jsonl")
    assert list(records[0]) == [
        *("id", "parent_id", "seed_id", "round", "method", "instruction", "output", "teacher", "usage", "filters"),
        *("task", "language", "call_ids"),
    ]
    assert list(rejected[0]) == [*records[0], "rule", "evidence"]
    order = {record["id"]: i for i, record in enumerate(records[:NUM_SEEDS])}
    places = [(record["round"], order[record["seed_id"]]) for record in records]
    assert places == sorted(places) and len(order) == NUM_SEEDS
    by_round = [read(tmp_path / "out" / "rounds" / f"round-0{n}.jsonl") for n in range(3)]
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
        expected = outputs(tmp_path / "one")
        evolve.main(arguments(server, seeds, tmp_path / "eight", concurrency=8))
        assert outputs(tmp_path / "eight") == expected
        assert len(server.requests) == 2 * num_calls
        evolve.main(arguments(server, seeds, tmp_path / "one", concurrency=8))
        assert outputs(tmp_path / "one") == expected
        assert len(server.requests) == 2 * num_calls


def test_overwrite_starts_anew(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "out", "--rounds", "1"))
        num_calls = len(server.requests)
        evolve.main(arguments(server, seeds, tmp_path / "out", "--rounds", "1", "--overwrite"))
        assert len(server.requests) == 2 * num_calls


def test_fewer_rounds_leave_no_file_of_the_further_ones(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "out"))
        evolve.main(arguments(server, seeds, tmp_path / "out", "--rounds", "1"))
    assert sorted(path.name for path in (tmp_path / "out" / "rounds").iterdir()) == ["round-00.jsonl", "round-01.jsonl"]


@pytest.mark.parametrize("answered", [1, 30, 70])
def test_a_killed_run_resumes_without_repeating_a_call(seeds, tmp_path, answered):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "whole"))
        num_calls = len(server.requests)
    with LoopbackTeacher(hold_after=answered, port=server.port) as server:
        command = [sys.executable, "-m", "wizardcoder_jax.evolve", *arguments(server, seeds, tmp_path / "killed")]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        for _ in range(4):  # all workers wait for the server, so every earlier answer is written
            assert server.held.acquire(timeout=60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert ledger_rows(tmp_path / "killed")[0] == answered
        server.release()
        num_before = len(server.requests)
        evolve.main(arguments(server, seeds, tmp_path / "killed"))
        assert len(server.requests) - num_before == num_calls - answered
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")


def test_a_budget_of_requests_holds_under_concurrency_and_a_larger_one_resumes(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "free"))
        num_calls = len(server.requests)
        server.requests.clear()
        for limit in (0, 10, 45):
            with pytest.raises(StoppedEarlyError, match=f"--max-requests {limit} "):
                evolve.main(arguments(server, seeds, tmp_path / "out", "--max-requests", str(limit), concurrency=8))
            assert len(server.requests) == ledger_rows(tmp_path / "out")[0] == limit
            assert not (tmp_path / "out" / "evolved.jsonl").exists()
        evolve.main(arguments(server, seeds, tmp_path / "out", "--max-requests", str(num_calls)))
        assert len(server.requests) == num_calls
        assert outputs(tmp_path / "out") == outputs(tmp_path / "free")


def test_a_budget_of_money_is_used_but_never_overshot(seeds, tmp_path):
    prices = ["--teacher.usd-per-million-prompt-tokens", "1000", "--teacher.usd-per-million-completion-tokens", "1000"]
    with LoopbackTeacher() as server:
        with pytest.raises(StoppedEarlyError, match="--max-usd 3 "):
            arguments_ = arguments(server, seeds, tmp_path / "out", *prices, "--max-usd", "3", concurrency=8)
            evolve.main([*arguments_, "--teacher.max-tokens", "100"])
        num_calls, usd = ledger_rows(tmp_path / "out")
        assert num_calls == len(server.requests)
    assert 2.2 < usd <= 3.0  # one more call could have cost up to 0.7


def test_budgets_are_never_overshot_by_many_calls_in_flight(seeds, tmp_path):
    def run(server, folder, *limits):
        more = ["--teacher.max-tokens", "60", "--teacher.usd-per-million-completion-tokens", "1000", *map(str, limits)]
        evolve.main(arguments(server, seeds, tmp_path / folder, *more, concurrency=64))

    with LoopbackTeacher() as server:
        with pytest.raises(StoppedEarlyError, match="--max-requests 30 "):
            run(server, "requests", "--max-requests", 30)
        assert len(server.requests) == 30
    with LoopbackTeacher() as server:
        with pytest.raises(StoppedEarlyError, match="--max-tokens 4000 is too low for"):
            run(server, "tokens", "--max-tokens", 4000)
        assert 0 < sum(map(tokens_of, server.requests)) <= 4000
    with LoopbackTeacher() as server:
        with pytest.raises(StoppedEarlyError, match=r"--max-usd 0.2 is too low for"):
            run(server, "usd", "--max-usd", 0.2)
        answers = (answer(request["messages"][0]["content"])[0] for request in server.requests)
        assert 0.1 < sum(len(text.split()) for text in answers) * 1e-3 <= 0.2


def tokens_of(request):
    """As the loopback teacher counts them."""
    prompt = request["messages"][0]["content"]
    return len(prompt.split()) + len(answer(prompt)[0].split())


def test_a_limit_of_money_needs_prices(seeds, tmp_path):
    with pytest.raises(InputError, match="max_usd needs prices"):
        evolve.main(["--seeds", str(seeds), "--output-dir", str(tmp_path), "--max-usd", "1"])


def test_a_dead_server_stops_the_run_with_status_75_and_it_resumes(seeds, tmp_path):
    down = [(503, {"Retry-After": "0.01"}, b"down")]
    with LoopbackTeacher() as server:
        command = [sys.executable, "-m", "wizardcoder_jax.evolve", *arguments(server, seeds, tmp_path / "out", concurrency=1)]
        server.scripted = [(200, JSON, chat_body("Harder."))] * 2 + down * 7
        stopped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (stopped.returncode, ledger_rows(tmp_path / "out")[0]) == (75, 2)
        assert stopped.stderr.splitlines()[-1].startswith("stopped: ") and "503" in stopped.stderr
        assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("reply", "status", "said"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>Log in</html>"), 2, "error: "),
        ((404, JSON, b"no such model"), 2, "error: "),
        ((200, JSON, b'{"choices": []}'), 75, "stopped: "),
        ((200, JSON, b'{"choices": [{"mess'), 75, "stopped: "),
        ((500, {"Retry-After": "0.01"}, b"<b>oops</b>\n\n"), 75, "stopped: "),
        (None, 75, "stopped: "),
    ],
)
def test_whatever_a_teacher_does_in_the_middle_is_one_line_and_what_was_answered_is_kept(seeds, tmp_path, reply, status, said):
    with LoopbackTeacher() as server:
        server.scripted = [None] * 20 + [(None, {}, b"") if reply is None else reply] * 1000
        command = [sys.executable, "-m", "wizardcoder_jax.evolve", *arguments(server, seeds, tmp_path / "out")]
        command += ["--teacher.max-attempts", "2"]
        stopped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert stopped.returncode == status
        line = stopped.stderr.splitlines()[-1]
        assert line.startswith(said) and "Traceback" not in stopped.stderr
        assert ledger_rows(tmp_path / "out")[0] == 20
        assert not (tmp_path / "out" / "evolved.jsonl").exists()
        server.scripted.clear()
        num_before = len(server.requests)
        evolve.main(arguments(server, seeds, tmp_path / "out"))
        num_after = len(server.requests) - num_before
        evolve.main(arguments(server, seeds, tmp_path / "whole"))
        assert num_after == len(server.requests) - num_before - num_after - 20
        assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_a_teacher_that_fails_for_a_while_is_waited_for(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "whole"))
        server.scripted = [None] * 10 + [(None, {}, b"")] + [(503, {"Retry-After": "0.01"}, b"")] * 6 + [None] * 9
        server.scripted += [(429, {"Retry-After": "0.01"}, b"")] * 4 + [(200, JSON, b'{"choices": []}')]
        evolve.main(arguments(server, seeds, tmp_path / "out", "--teacher.max-attempts", "20"))
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


LIMITED_DISK = """
import resource, sys
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.evolve import main
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
run_command(main)
"""


@pytest.mark.parametrize("size", [1_000, 20_000, 60_000, 140_000])
def test_a_full_disk_stops_the_run_resumably_and_what_was_paid_for_is_kept(seeds, tmp_path, size):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "whole"))
        num_calls = len(server.requests)
        server.requests.clear()
        command = [sys.executable, "-c", LIMITED_DISK, str(size), *arguments(server, seeds, tmp_path / "out")]
        stopped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert stopped.returncode == 75, stopped.stderr
        line = stopped.stderr.splitlines()[-1]
        assert line.startswith("stopped: cannot write") and ("free disk space" in line or "free some space" in line)
        assert "Traceback" not in stopped.stderr
        evolve.main(arguments(server, seeds, tmp_path / "out"))
        assert num_calls <= len(server.requests) <= num_calls + concurrent_steps(4)  # those in progress when the disk was full
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_a_record_too_long_for_the_teacher_is_dropped_and_the_others_go_on(seeds, tmp_path):
    too_long = b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'
    with LoopbackTeacher([(200, JSON, chat_body("x" * 5000)), None, (400, JSON, too_long)]) as server:
        evolve.main(arguments(server, seeds, tmp_path / "out", "--rounds", "1", concurrency=1))
        again = len(server.requests)
        evolve.main(arguments(server, seeds, tmp_path / "out", "--rounds", "1", concurrency=1))
        assert len(server.requests) == again
    dropped = [entry for entry in read(tmp_path / "out" / "rejected.jsonl") if len(entry["instruction"]) == 5000]
    assert [entry["rule"] for entry in dropped] == ["empty"]


def test_a_wrong_key_is_one_line_and_status_2(seeds, tmp_path):
    with LoopbackTeacher([(401, JSON, b"no")]) as server:
        command = [sys.executable, "-m", "wizardcoder_jax.evolve", *arguments(server, seeds, tmp_path / "out", concurrency=1)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
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


def test_the_estimate_comes_before_the_first_call(seeds, tmp_path, capfd):
    with LoopbackTeacher([(401, JSON, b"")] * 9) as server, pytest.raises(InputError):
        evolve.main(arguments(server, seeds, tmp_path / "out"))
    assert f"at most {NUM_SEEDS * 2 * 3} calls" in capfd.readouterr().err


def test_a_second_process_in_the_same_folder_is_refused(seeds, tmp_path):
    with LoopbackTeacher(hold_after=0) as server:
        command = [sys.executable, "-m", "wizardcoder_jax.evolve", *arguments(server, seeds, tmp_path / "out")]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        assert server.held.acquire(timeout=60)
        with pytest.raises(InputError, match="another evolve"):
            evolve.main(arguments(server, seeds, tmp_path / "out"))
        process.send_signal(signal.SIGINT)  # ends at once, although every request still waits
        assert process.wait(timeout=60) == 75


@pytest.mark.parametrize("ignored", [False, True])  # Ctrl-C is, in a shell's background
def test_sigterm_ends_the_run_with_one_line_and_it_resumes(seeds, tmp_path, ignored):
    with LoopbackTeacher(hold_after=8) as server:
        command = [sys.executable, "-m", "wizardcoder_jax.evolve", *arguments(server, seeds, tmp_path / "out")]
        ignore = (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=ignore)
        for _ in range(4):
            assert server.held.acquire(timeout=60)
        process.terminate()
        _, said = process.communicate(timeout=60)
        assert (process.returncode, ledger_rows(tmp_path / "out")[0]) == (75, 8)
        assert said.splitlines()[-1].startswith("stopped: ") and "Traceback" not in said
        server.release()
        evolve.main(arguments(server, seeds, tmp_path / "out"))
        evolve.main(arguments(server, seeds, tmp_path / "whole"))
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_a_servers_odd_name_and_counts_end_in_no_file_and_stop_nothing(seeds, tmp_path):
    odd = json.loads(chat_body("def f(): pass", usage={"prompt_tokens": 10**400, "completion_tokens": 2}))
    odd["model"] = "m\ud800"
    with LoopbackTeacher([(200, JSON, json.dumps(odd).encode())] * 30) as server:
        evolve.main(arguments(server, seeds, tmp_path / "out", "--exports", "parquet"))
    assert "m?" in {entry["teacher"] for entry in read(tmp_path / "out" / "evolved.jsonl")}


def test_a_malformed_seed_is_named_and_nothing_is_written(tmp_path):
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"instruction": "A", "output": "b"}\n{"prompt": "A", "output": "b"}\n')
    command = [sys.executable, "-m", "wizardcoder_jax.evolve", "--seeds", str(path), "--output-dir", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: {path}:2: no field "instruction"') and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_records_that_hold_a_benchmark_problem_are_dropped_with_evidence(seeds, tmp_path):
    problem = "Write function number 3. Return the largest divisor of n that is smaller than its square root."
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "b.jsonl").write_text(json.dumps({"task_id": "B/3", "prompt": problem}) + "\n")
    with seeds.open("a") as file:
        file.write(json.dumps({"instruction": problem.upper(), "output": "x"}) + "\n")
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "out", "--benchmarks-dir", str(tmp_path / "benchmarks")))
        assert not any("LARGEST" in request["messages"][0]["content"] for request in server.requests)
    dropped = [entry for entry in read(tmp_path / "out" / "rejected.jsonl") if entry["rule"] == "contaminated"]
    assert [entry["round"] for entry in dropped] == [0] and "B/3" in dropped[0]["evidence"]
    assert (
        "1 records dropped because they share text with one of 1 benchmark" in (tmp_path / "out" / "data_card.md").read_text()
    )


def test_a_replayed_run_equals_the_run_that_was_recorded(seeds, tmp_path):
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
    evolve.main(["--seeds", str(seeds), "--output-dir", str(tmp_path / "again"), "--rounds", "2", *replay])
    for name in ("evolved.jsonl", "rejected.jsonl"):
        again, live = ([{**entry, "call_ids": None} for entry in read(tmp_path / run / name)] for run in ("again", "live"))
        assert again == live


@pytest.mark.parametrize("folder", ["gs://bucket/out", "/dev/null/out"])
def test_a_folder_that_cannot_hold_the_ledger_is_refused(seeds, folder):
    with pytest.raises(InputError, match=r"must be local|cannot create"):
        evolve.main(["--seeds", str(seeds), "--output-dir", folder])


def test_evolve_starts_without_jax_and_tensorflow(seeds, tmp_path):
    script = (
        "import sys; from wizardcoder_jax import evolve\n"
        "try: evolve.main(sys.argv[1:])\n"
        "finally: print(sorted({'jax', 'tensorflow', 'torch', 'flax'} & set(sys.modules)))"
    )
    with LoopbackTeacher() as server:
        command = [sys.executable, "-c", script, *arguments(server, seeds, tmp_path / "out")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"


def test_the_preset_is_the_papers():
    config = load_preset(str(ROOT / "configs" / "evolve_wizardcoder.py"), EvolveConfig)
    teacher = config.teacher
    assert (config.rounds, config.judge_information_gain) == (3, True)
    assert (teacher.model, teacher.temperature, teacher.top_p, teacher.max_tokens) == ("gpt-3.5-turbo", 1.0, 0.95, 2048)
