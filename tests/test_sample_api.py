"""`sample --model api:NAME` against a server on the loopback interface."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.helpers.loopback_teacher import LoopbackTeacher, answer, chat_body, completion_body
from tests.helpers.processes import REPOSITORY, run_python
from wizardcoder_jax import sample
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.core.errors import InputError, StoppedEarlyError

KEY = "sk-loopback-0123456789abcdef"
JSON = {"Content-Type": "application/json"}
NUM_PROBLEMS = 12


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    record = {"entry_point": "f", "canonical_solution": "    return 1\n", "test": "def check(candidate):\n    pass\n"}
    lines = [{"task_id": f"T/{i}", "prompt": f"def f():\n    # {i}\n", **record} for i in range(NUM_PROBLEMS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def arguments(problems, tmp_path):
    def make(server, *more, output=tmp_path / "samples.jsonl"):
        named = ["--model", "api:m", "--api.base-url", server.base_url, "--benchmark", "humaneval"]
        return [*map(str, [*named, "--benchmark-file", problems, "--output", output, *more])]

    return make


def rows_of(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def meta_of(path):
    return json.loads(path.with_suffix(".meta.json").read_text())


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process, and return its exit status and stderr."""

    def run(arguments):
        monkeypatch.setattr(sys, "argv", ["sample", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_command(sample.main)
        return stop.value.code, capsys.readouterr().err

    return run


def test_completion_protocols_use_completions_and_chat_protocols_use_chat_completions(arguments, tmp_path):
    with LoopbackTeacher() as server:
        sample.main(arguments(server, "--limit", "1", "--protocol", "wizardcoder-humaneval-v1"))
        assert server.paths == ["/v1/completions"]
        assert server.requests[0]["prompt"].endswith(
            "### Instruction:\nCreate a Python script for this problem:\ndef f():\n\t# 0\n\n\n### Response:"
        )
        sample.main(arguments(server, "--limit", "1", "--protocol", "chat"))
        assert server.paths[1:] == ["/v1/chat/completions"]
        [message] = server.requests[1]["messages"]
        assert message["role"] == "user" and "```\ndef f():\n    # 0\n```" in message["content"]
        assert meta_of(tmp_path / "samples.jsonl")["protocol"] == "chat"


def test_the_first_four_stop_strings_of_a_base_model_are_sent(arguments):
    with LoopbackTeacher() as server:
        sample.main(arguments(server, "--limit", "1", "--protocol", "completion"))
    assert server.requests[0]["stop"] == ["\nclass", "\ndef", "\n#", "\nif"]


def test_extensions_of_the_api_are_only_sent_if_they_are_set(arguments):
    names = ("top_k", "min_p", "repetition_penalty")
    with LoopbackTeacher() as server:
        sample.main(arguments(server, "--limit", "1"))
        more = ["--temperature", "0.8", "--top-k", "40", "--min-p", "0.05", "--repetition-penalty", "1.1", "--overwrite"]
        sample.main(arguments(server, "--limit", "1", *more))
        sent = [{name: request[name] for name in names if name in request} for request in server.requests]
    assert sent == [{}, {"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1}]


def test_samples_and_settings_are_written_as_for_a_local_model(arguments, tmp_path):
    sampled = ["--num-samples", "3", "--temperature", "0.8", "--top-p", "0.9", "--seed", "5", "--max-length", "77"]
    with LoopbackTeacher() as server:
        sample.main(arguments(server, "--protocol", "chat", *sampled))
    rows = rows_of(tmp_path / "samples.jsonl")
    assert [(row["task_id"], row["sample_index"]) for row in rows] == [
        (f"T/{i}", j) for i in range(NUM_PROBLEMS) for j in range(3)
    ]
    assert Counter(request["seed"] for request in server.requests) == {5: NUM_PROBLEMS, 6: NUM_PROBLEMS, 7: NUM_PROBLEMS}
    decoding = {
        (request["temperature"], request["top_p"], request["max_tokens"], request["model"]) for request in server.requests
    }
    assert decoding == {(0.8, 0.9, 77, "m")}
    asked = {request["messages"][0]["content"] for request in server.requests}
    expected = {answer(prompt) for prompt in asked}
    for row in rows:
        assert list(row) == ["task_id", "sample_index", "completion", "raw", "num_tokens", "finish_reason"]
        assert (row["raw"], row["finish_reason"]) in expected
        assert row["num_tokens"] == len(row["raw"].split())
    meta = meta_of(tmp_path / "samples.jsonl")
    assert {name: meta[name] for name in ("model", "protocol", "seed", "temperature", "top_p", "num_samples")} == {
        "model": "api:m",
        "protocol": "chat",
        "seed": 5,
        "temperature": 0.8,
        "top_p": 0.9,
        "num_samples": 3,
    }
    assert meta["usage"]["served_by"] == ["loopback-1"]
    assert meta["usage"]["completion_tokens"] == sum(row["num_tokens"] for row in rows)


def test_answers_are_cleaned_by_the_protocol(arguments, tmp_path):
    fenced = "Sure:\n```python\ndef f():\n    return 1\n```\nDone."
    with LoopbackTeacher([(200, JSON, chat_body(fenced))]) as server:
        sample.main(arguments(server, "--limit", "1", "--protocol", "chat"))
    [row] = rows_of(tmp_path / "samples.jsonl")
    assert (row["completion"], row["raw"]) == ("def f():\n    return 1\n", fenced)


def test_fields_that_the_server_omits_are_null(arguments, tmp_path):
    body = json.dumps({"choices": [{"message": {"content": None}, "finish_reason": None}]}).encode()
    with LoopbackTeacher([(200, JSON, body)]) as server:
        sample.main(arguments(server, "--limit", "1", "--protocol", "chat"))
    [row] = rows_of(tmp_path / "samples.jsonl")
    assert (row["raw"], row["num_tokens"], row["finish_reason"]) == ("", None, None)


@pytest.mark.parametrize("text", ["\ud800 lone", "\0\x1b[31m\u2028", "x" * 3_000_000, "", "<script>"])
def test_hostile_answers_are_written_and_read_back(arguments, tmp_path, text):
    with LoopbackTeacher([(200, JSON, completion_body(text))]) as server:
        sample.main(arguments(server, "--limit", "1"))
    [row] = rows_of(tmp_path / "samples.jsonl")
    assert row["raw"] == text.replace("\ud800", "?")


def test_a_prompts_file_is_sent_as_completions_or_as_chat_messages(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"instruction": "Add.", "input": "1 2", "id": "a"}\n')
    with LoopbackTeacher() as server:
        named = ["--model", "api:m", "--api.base-url", server.base_url, "--prompts", str(prompts)]
        sample.main([*named, "--output", str(tmp_path / "bare.jsonl")])
        sample.main([*named, "--output", str(tmp_path / "chat.jsonl"), "--protocol", "chat"])
    assert server.requests[0]["prompt"].endswith("### Instruction:\nAdd.\n1 2\n\n### Response:")
    assert server.requests[1]["messages"] == [{"role": "user", "content": "Add.\n1 2"}]


def test_requests_run_concurrently_up_to_the_limit(arguments):
    with LoopbackTeacher(hold_after=0) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "wizardcoder_jax.sample", *arguments(server, "--api.concurrency", "5")],
            cwd=REPOSITORY,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(5):
            assert server.held.acquire(timeout=60)
        assert not server.held.acquire(timeout=0.3)
        process.send_signal(signal.SIGINT)  # ends at once, although no request has been answered
        assert process.wait(timeout=60) == 75


def test_a_killed_run_only_pays_again_for_requests_in_flight(arguments, tmp_path):
    more = ["--num-samples", "2", "--temperature", "0.5", "--api.concurrency", "4"]
    with LoopbackTeacher() as server:
        sample.main(arguments(server, *more, output=tmp_path / "whole.jsonl"))
        num_calls = len(server.requests)
        assert num_calls == 2 * NUM_PROBLEMS
    with LoopbackTeacher(hold_after=9) as server:
        command = [sys.executable, "-m", "wizardcoder_jax.sample", *arguments(server, *more)]
        process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
        for _ in range(4):  # all workers wait for the server, so every earlier answer has been recorded
            assert server.held.acquire(timeout=60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "samples.jsonl").exists()
        server.release()
        before = len(server.requests)
        sample.main(arguments(server, *more))
        assert len(server.requests) - before == num_calls - 9
        assert (tmp_path / "samples.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        sample.main(arguments(server, *more))  # repeating a finished run costs nothing
        assert len(server.requests) - before == num_calls - 9


def test_more_samples_only_cost_the_new_ones_and_overwrite_pays_for_all(arguments):
    more = ["--temperature", "0.5", "--num-samples"]
    with LoopbackTeacher() as server:
        sample.main(arguments(server, *more, "1"))
        sample.main(arguments(server, *more, "3"))
        assert len(server.requests) == 3 * NUM_PROBLEMS
        sample.main(arguments(server, *more, "3", "--overwrite"))
        assert len(server.requests) == 6 * NUM_PROBLEMS


def test_answers_are_kept_when_other_settings_are_tried_in_between(arguments):
    with LoopbackTeacher() as server:
        sample.main(arguments(server, "--protocol", "chat"))
        sample.main(arguments(server, "--protocol", "completion"))
        sample.main(arguments(server, "--protocol", "chat"))
        assert len(server.requests) == 2 * NUM_PROBLEMS


def test_temporary_failures_of_the_server_lose_no_answer(arguments, tmp_path):
    trouble = [(429, {"Retry-After": "0.05"}, b"slow down"), (500, {}, b"oops"), (502, {}, b"<html>"), (None, {}, b"")]
    with LoopbackTeacher(trouble) as server:
        started = time.monotonic()
        sample.main(arguments(server, "--api.concurrency", "2"))
        assert time.monotonic() - started >= 0.05
        assert len(server.requests) == NUM_PROBLEMS + len(trouble)
    assert len(rows_of(tmp_path / "samples.jsonl")) == NUM_PROBLEMS


def test_a_server_that_stays_down_ends_the_run_with_status_75_and_it_resumes(arguments, run):
    down = [(503, {"Retry-After": "0"}, b"down")] * 3
    with LoopbackTeacher([None, None, *down]) as server:
        command = arguments(server, "--api.concurrency", "1", "--api.max-attempts", "3")
        status, log = run(command)
        assert status == 75
        last = log.splitlines()[-1]
        assert last.startswith("stopped: ") and "503: down (3 attempts)" in last and "Traceback" not in log
        sample.main(command)
        assert len(server.requests) == NUM_PROBLEMS + len(down)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, JSON, f"wrong key {KEY}".encode()), "check OPENAI_API_KEY"),
        ((403, JSON, b""), "check OPENAI_API_KEY"),
        (
            (200, {"Content-Type": "text/html"}, b"<html>Welcome</html>"),
            "with text/html, not JSON: <html>Welcome</html>",
        ),
        ((404, JSON, b"no such model"), "404: no such model; check --api.base-url"),
        ((200, JSON, b'{"choices": [{"index": 0}]}'), "choice that has no text"),
    ],
)
def test_a_call_that_cannot_succeed_is_reported_in_one_line_and_not_repeated(arguments, run, tmp_path, reply, message):
    with LoopbackTeacher([reply] * 9) as server:
        status, log = run(arguments(server, "--api.concurrency", "1"))
        assert len(server.requests) == 1
    assert status == 2
    [line] = log.splitlines()
    assert line.startswith("error: ") and message in line and KEY not in line
    assert not (tmp_path / "samples.jsonl").exists()


def test_the_key_is_in_no_output(arguments, tmp_path, capfd):
    with LoopbackTeacher([(200, JSON, completion_body(f"key = '{KEY}'")), (500, {"Retry-After": "0"}, KEY.encode())]) as server:
        sample.main(arguments(server))
    assert set(server.authorizations) == {f"Bearer {KEY}"}
    written = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(written) >= 4
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path
    captured = capfd.readouterr()
    assert KEY not in captured.out + captured.err


def test_a_limit_on_requests_holds_over_all_runs_and_a_larger_limit_resumes(arguments, tmp_path):
    with LoopbackTeacher() as server:
        for limit in (0, 5, 9):
            with pytest.raises(StoppedEarlyError, match=f"--api.max-requests {limit} "):
                sample.main(arguments(server, "--api.max-requests", limit))
            assert len(server.requests) == limit
        assert not (tmp_path / "samples.jsonl").exists()
        sample.main(arguments(server, "--api.max-requests", NUM_PROBLEMS))
        assert len(server.requests) == NUM_PROBLEMS


def test_limits_on_cost_and_tokens_are_never_exceeded(arguments, tmp_path):
    prices = ["--api.usd-per-million-prompt-tokens", "1000", "--api.usd-per-million-completion-tokens", "1000"]
    more = ["--protocol", "completion", "--max-length", "60", *prices]
    ledger = tmp_path / "samples.ledger.sqlite"
    with LoopbackTeacher() as server:
        with pytest.raises(StoppedEarlyError, match=r"--api.max-usd 0.11 is too low for"):
            sample.main(arguments(server, *more, "--api.max-usd", "0.11"))
        with sqlite3.connect(ledger) as connection:
            num_calls, usd = connection.execute("SELECT COUNT(*), TOTAL(usd) FROM calls").fetchone()
        connection.close()
        assert 0.02 < usd <= 0.11 and num_calls == len(server.requests)
        with pytest.raises(StoppedEarlyError, match=r"--api.max-tokens 120 is too low for"):
            sample.main(arguments(server, *more, "--api.max-tokens", "120"))
        assert len(server.requests) < NUM_PROBLEMS
        sample.main(arguments(server, *more, "--api.max-tokens", "100000"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "api:"], "lacks the model's name"),
        (["--api.base-url", "localhost:8000"], "api.base_url must start with http://"),
        (["--api.max-usd", "1"], "api.max_usd needs prices: --api.usd-per-million-prompt-tokens"),
        (["--api.max-tokens", "-1"], "api.max_tokens must be >= 0"),
        (["--api.concurrency", "0"], "api.concurrency must be at least 1"),
        (["--protocol", "stored"], "has no prompt to sample with"),
        (["--output", "gs://bucket/samples.jsonl"], "must be a local path"),
    ],
)
def test_a_bad_setting_is_reported_before_any_call(arguments, options, message):
    with LoopbackTeacher() as server:
        with pytest.raises(InputError) as caught:
            sample.main(arguments(server, *options))
        assert message in str(caught.value) and server.requests == []


def test_a_second_process_on_the_same_output_is_refused(arguments):
    with LoopbackTeacher(hold_after=0) as server:
        command = [sys.executable, "-m", "wizardcoder_jax.sample", *arguments(server)]
        process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
        assert server.held.acquire(timeout=60)
        with pytest.raises(InputError, match="another sample command is writing"):
            sample.main(arguments(server))
        process.kill()
        process.wait()


def test_sampling_from_an_api_imports_no_jax_and_starts_quickly(arguments):
    code = (
        "import sys, time\n"
        "from wizardcoder_jax.sample import main\n"
        "main(sys.argv[1:])\n"
        "assert not {'jax', 'tensorflow', 'torch', 'flax', 'transformers'} & set(sys.modules)\n"
        "print(time.process_time())"
    )
    with LoopbackTeacher() as server:
        done = run_python("-c", code, *arguments(server))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 3
