import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.processes import REPOSITORY, environment, start_together

JOIN = """
import os, sys, time
from wizardcoder_jax.core import distributed
from wizardcoder_jax.config.command_line import run_command
"""


def outcomes(processes, timeout_s=300):
    """(exit status, stdout, stderr) of each process."""
    outputs = [process.communicate(timeout=timeout_s) for process in processes]
    return [(process.returncode, out.strip(), err) for process, (out, err) in zip(processes, outputs, strict=True)]


@pytest.mark.parametrize("present", [0, 1])
def test_a_missing_peer_is_one_clear_line(present):
    code = f"{JOIN}distributed.JOIN_TIMEOUT_S = 3\ndistributed.initialize_distributed()"
    [(status, _, err)] = outcomes(start_together(2, "-c", code, only=[present]))
    assert status == 1
    assert err.count("\n") == 1 and err.startswith("error: not all 2 processes at 127.0.0.1:"), err


def test_a_peer_that_is_killed_ends_the_others():
    code = (
        f"{JOIN}distributed.HEARTBEAT_TIMEOUT_S = 10\n"
        "def main(_):\n"
        "  import jax\n"
        "  distributed.initialize_distributed()\n"
        "  anyone = distributed.AnyProcess(jax.make_mesh((2,), ('data',)))\n"
        "  for i in range(10**6):\n"
        "    if i == 20 and jax.process_index() == 1: os.kill(os.getpid(), 9)\n"
        "    assert not anyone(False)\n"
        "run_command(main)"
    )
    (status, _, err), (killed, _, _) = outcomes(start_together(2, "-c", code))
    assert killed == -signal.SIGKILL and status not in (0, 75), err[-2000:]


def test_all_processes_reject_settings_that_differ_between_hosts():
    code = (
        f"{JOIN}def main(_):\n"
        "  distributed.initialize_distributed()\n"
        "  distributed.require_same_settings({'seed': 1, 'lr': float(os.environ['LR']) + int(os.environ['JAX_PROCESS_ID'])})\n"
        "run_command(main)"
    )
    for status, _, err in outcomes(start_together(2, "-c", code, LR="0.5")):
        assert status == 2
        assert "error: process 1 has lr 1.5 and process 0 has 0.5; start the same command" in err


def test_a_flag_of_one_process_reaches_all_at_the_next_call():
    code = (
        f"{JOIN}import jax\n"
        "distributed.initialize_distributed()\n"
        "anyone = distributed.AnyProcess(jax.make_mesh((4,), ('data',)))\n"
        "flags = [jax.process_index() == i for i in (0, 1, 2, 2)]\n"
        "print([anyone(flag) for flag in flags])"
    )
    results = outcomes(start_together(2, "-c", code, num_devices=2))
    assert [(status, out.splitlines()[-1]) for status, out, _ in results] == [(0, "[False, True, True, False]")] * 2


SUPERVISE = [sys.executable, REPOSITORY / "scripts/supervise.py"]


def supervise(tmp_path, body, *options):
    """The supervisor of two processes that append their number to a file and then run `body`."""
    log = tmp_path / "log"
    code = (
        "import os, sys, time, pathlib\n"
        f"log, me = pathlib.Path({str(log)!r}), int(os.environ['JAX_PROCESS_ID'])\n"
        "with log.open('a') as file: file.write(f'{me}\\n')\n"
        "num_starts = log.read_text().count(str(me))\n" + body
    )
    command = [*SUPERVISE, "--processes", "2", *options, "--", sys.executable, "-c", code]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True), log


def test_the_supervisor_restarts_all_processes_when_one_fails(tmp_path):
    body = "if num_starts < 3 and me == 1: os.kill(os.getpid(), 9)\nif num_starts < 3: time.sleep(60)"
    process, log = supervise(tmp_path, body)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert sorted(log.read_text().split()) == ["0"] * 3 + ["1"] * 3


@pytest.mark.parametrize(("ends", "status", "starts"), [("sys.exit(2)", 2, 1), ("sys.exit(1)", 1, 2)])
def test_the_supervisor_gives_up_after_bad_input_and_repeated_failures(tmp_path, ends, status, starts):
    process, log = supervise(tmp_path, ends, "--max-restarts", "1")
    process.communicate(timeout=300)
    assert process.returncode == status
    assert log.read_text().count("0") == starts


def test_the_supervisor_forwards_a_stop_signal(tmp_path):
    body = (
        "import signal\n"
        "def leave(*_): log.with_suffix(f'.{me}').touch(); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "log.with_suffix(f'.up{me}').touch()\n"
        "time.sleep(60)"
    )
    process, log = supervise(tmp_path, body)
    deadline = time.monotonic() + 300
    while not all(log.with_suffix(f".up{i}").exists() for i in range(2)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 75
    assert all(log.with_suffix(f".{i}").exists() for i in range(2))
