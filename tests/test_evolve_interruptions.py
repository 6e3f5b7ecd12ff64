"""evolve stopped by failing teachers, signals and full disks: it stops with one line, keeps all answers, and resumes."""

import asyncio
import functools
import signal
import subprocess
import sys

import pytest

from tests.helpers.evolve_runs import (
    JSON,
    KEY,
    arguments,
    ledger_totals,
    read_outputs,
    run_process,
    start_process,
    write_seeds,
)
from tests.helpers.loopback_teacher import LoopbackTeacher, chat_body
from tests.helpers.processes import REPOSITORY
from wizardcoder_jax import evolve
from wizardcoder_jax.core.errors import InputError, StoppedEarlyError
from wizardcoder_jax.evol_instruct.teachers import openai_teacher
from wizardcoder_jax.llm_client.ordered_map import concurrent_steps

DOWN = (503, {"Retry-After": "0.01"}, b"down")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def without_retry_delays(monkeypatch):
    async def sleep(_):
        await asyncio.sleep(0)

    patched = functools.partial(openai_teacher.OpenAITeacher, sleep=sleep)
    monkeypatch.setattr(openai_teacher, "OpenAITeacher", patched)


@pytest.fixture
def seeds(tmp_path):
    return write_seeds(tmp_path)


def slow_except(value, values):
    """Parametrize over all values; only one of them runs in the default suite."""
    return [value if other == value else pytest.param(other, marks=pytest.mark.slow) for other in values]


@pytest.mark.parametrize("answered", slow_except(30, [1, 30, 70]))
def test_a_killed_run_resumes_without_repeating_a_call(seeds, tmp_path, answered):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "whole"))
        num_calls = len(server.requests)
    with LoopbackTeacher(hold_after=answered, port=server.port) as server:
        with start_process(*arguments(server, seeds, tmp_path / "killed")) as process:
            for _ in range(4):  # all workers wait for the server, so every earlier answer is written
                assert server.held.acquire(timeout=120)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert ledger_totals(tmp_path / "killed")[0] == answered
        server.release()
        num_before = len(server.requests)
        evolve.main(arguments(server, seeds, tmp_path / "killed"))
        assert len(server.requests) - num_before == num_calls - answered
    assert read_outputs(tmp_path / "killed") == read_outputs(tmp_path / "whole")


def test_a_server_that_is_down_stops_the_run_with_status_75_and_it_resumes(seeds, tmp_path):
    with LoopbackTeacher() as server:
        command = arguments(server, seeds, tmp_path / "out", concurrency=1)
        server.scripted = [(200, JSON, chat_body("Harder."))] * 2 + [DOWN] * 7
        stopped = run_process(*command)
        assert (stopped.returncode, ledger_totals(tmp_path / "out")[0]) == (75, 2)
        assert stopped.stderr.splitlines()[-1].startswith("stopped: ") and "503" in stopped.stderr
        assert "Traceback" not in stopped.stderr
        evolve.main(command)
        assert (tmp_path / "out" / "evolved.jsonl").exists()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>Log in</html>"), InputError),
        ((404, JSON, b"no such model"), InputError),
        ((200, JSON, b'{"choices": []}'), StoppedEarlyError),
        ((200, JSON, b'{"choices": [{"mess'), StoppedEarlyError),
        ((500, {"Retry-After": "0.01"}, b"<b>oops</b>\n\n"), StoppedEarlyError),
        (None, StoppedEarlyError),
    ],
)
@pytest.mark.usefixtures("without_retry_delays")
def test_a_teacher_failing_midway_gives_one_line_and_all_answers_are_kept(seeds, tmp_path, reply, error):
    with LoopbackTeacher() as server:
        server.scripted = [None] * 20 + [(None, {}, b"") if reply is None else reply] * 1000
        with pytest.raises(error) as caught:
            evolve.main([*arguments(server, seeds, tmp_path / "out"), "--teacher.max-attempts", "2"])
        assert "\n" not in str(caught.value)
        assert ledger_totals(tmp_path / "out")[0] == 20
        assert not (tmp_path / "out" / "evolved.jsonl").exists()
        server.scripted.clear()
        num_before = len(server.requests)
        evolve.main(arguments(server, seeds, tmp_path / "out"))
        num_resumed = len(server.requests) - num_before
        evolve.main(arguments(server, seeds, tmp_path / "whole"))
        assert num_resumed == len(server.requests) - num_before - num_resumed - 20
        assert read_outputs(tmp_path / "out") == read_outputs(tmp_path / "whole")


@pytest.mark.usefixtures("without_retry_delays")
def test_a_teacher_that_fails_temporarily_is_retried(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "whole"))
        server.scripted = [None] * 10 + [(None, {}, b"")] + [DOWN] * 6 + [None] * 9
        server.scripted += [(429, {"Retry-After": "0.01"}, b"")] * 4 + [(200, JSON, b'{"choices": []}')]
        evolve.main(arguments(server, seeds, tmp_path / "out", "--teacher.max-attempts", "20"))
    assert read_outputs(tmp_path / "out") == read_outputs(tmp_path / "whole")


LIMITED_DISK = """
import resource, sys
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.evolve import main
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
run_command(main)
"""


@pytest.mark.parametrize("size", slow_except(60_000, [1_000, 20_000, 60_000, 140_000]))
def test_a_full_disk_stops_the_run_which_resumes_with_all_answers(seeds, tmp_path, size):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "whole"))
        num_calls = len(server.requests)
        server.requests.clear()
        command = [sys.executable, "-c", LIMITED_DISK, str(size), *arguments(server, seeds, tmp_path / "out")]
        stopped = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert stopped.returncode == 75, stopped.stderr
        line = stopped.stderr.splitlines()[-1]
        assert line.startswith("stopped: cannot write") and "free disk space" in line
        assert "Traceback" not in stopped.stderr
        evolve.main(arguments(server, seeds, tmp_path / "out"))
        assert num_calls <= len(server.requests) <= num_calls + concurrent_steps(4)  # those in progress when the disk was full
    assert read_outputs(tmp_path / "out") == read_outputs(tmp_path / "whole")


def test_a_second_process_in_the_same_folder_is_refused(seeds, tmp_path):
    with LoopbackTeacher(hold_after=0) as server, start_process(*arguments(server, seeds, tmp_path / "out")) as process:
        assert server.held.acquire(timeout=120)
        with pytest.raises(InputError, match="another evolve"):
            evolve.main(arguments(server, seeds, tmp_path / "out"))
        process.send_signal(signal.SIGINT)  # the process ends although every request still waits
        assert process.wait(timeout=120) == 75


@pytest.mark.parametrize("ignores_sigint", [False, True])  # a shell's background processes ignore Ctrl-C
def test_sigterm_ends_the_run_with_one_line_and_it_resumes(seeds, tmp_path, ignores_sigint):
    with LoopbackTeacher(hold_after=8) as server:
        command = arguments(server, seeds, tmp_path / "out")
        with start_process(*command, ignores_sigint=ignores_sigint) as process:
            for _ in range(4):
                assert server.held.acquire(timeout=120)
            process.terminate()
            _, stderr = process.communicate(timeout=120)
        assert (process.returncode, ledger_totals(tmp_path / "out")[0]) == (75, 8)
        assert stderr.splitlines()[-1].startswith("stopped: ") and "Traceback" not in stderr
        server.release()
        evolve.main(arguments(server, seeds, tmp_path / "out"))
        evolve.main(arguments(server, seeds, tmp_path / "whole"))
    assert read_outputs(tmp_path / "out") == read_outputs(tmp_path / "whole")
