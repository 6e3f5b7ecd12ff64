import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from wizardcoder_jax.errors import InputError
from wizardcoder_jax.sandbox import bubblewrap
from wizardcoder_jax.sandbox.program import Limits, Program, Verdict
from wizardcoder_jax.sandbox.runner import Sandbox

CHECK = "\ncheck(f)"


@pytest.fixture(scope="module")
def sandbox():
    """Hostile programs run in here only: with no isolation they would reach this machine."""
    try:
        return Sandbox.open()
    except InputError as error:
        pytest.skip(str(error))


def reason_of(sandbox, candidate, test="", timeout_s=3.0):
    return sandbox.run(Program(candidate=candidate, test=test), timeout_s).reason


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        ("def f(): return 1", "passed"),
        ("assert 1 == 2", "assertion"),
        ("raise KeyError('x')", "exception:KeyError"),
        ("class Odd(Exception): pass\nraise Odd", "exception:Odd"),
        ("def f(:", "syntax"),
        ("x = '\0'", "syntax"),
        ("x = '\ud800'", "syntax"),
        ("eval('(')", "exception:SyntaxError"),
        ("def f(): f()\nf()", "exception:RecursionError"),
        ("x = bytearray(10**11)", "memory"),
        ("raise SystemExit(0)", "exit"),
        ("raise KeyboardInterrupt", "exception:KeyboardInterrupt"),
    ],
)
def test_each_way_of_ending_has_its_reason(sandbox, candidate, reason):
    assert reason_of(sandbox, candidate) == reason


@pytest.mark.parametrize(
    "candidate",
    [
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        "import os, sys\ndef f(): sys.exit(0)",
        "import os\ndef f(): os._exit(0)",
        "import atexit, os\natexit.register(os._exit, 0)\ndef f(): raise ValueError",
        "def f(): print('passed')",
        "import os\ndef f():\n  for fd in range(256):\n    try: os.write(fd, b'\\npassed\\n' + b'0' * 32 + b' passed \\n')\n"
        "    except OSError: pass",
        "import os, signal\ndef f(): os.kill(os.getpid(), signal.SIGKILL)",
        "import sys\nsys.excepthook = lambda *a: __import__('os')._exit(0)\ndef f(): raise ValueError",
    ],
)
def test_leaving_early_or_printing_is_not_passing(sandbox, candidate):
    verdict = sandbox.run(Program(candidate=candidate, test="\nassert f() == 1"), 3.0)
    assert not verdict.passed
    assert verdict.reason != "sandbox"


def test_an_endless_loop_is_a_timeout_of_cpu_seconds(sandbox):
    verdict = sandbox.run(Program(candidate="while True: pass", test=""), 0.3)
    assert (verdict.reason, verdict.detail) == ("timeout", "CPU limit")
    assert verdict.seconds < 10


def test_ignoring_the_time_signals_does_not_help(sandbox):
    candidate = "import signal\nsignal.signal(signal.SIGPROF, signal.SIG_IGN)\nsignal.setitimer(signal.ITIMER_PROF, 0)\n"
    candidate += "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert reason_of(sandbox, candidate, timeout_s=0.2) == "timeout"


def test_endless_output_is_cut_by_the_time_limit(sandbox):
    assert reason_of(sandbox, "while True: print('x' * 10000)", timeout_s=0.3) == "timeout"


def test_flooding_the_verdict_pipe_ends_the_program(sandbox):
    candidate = "import os\nfor fd in range(3, 10):\n  try:\n    while True: os.write(fd, b'x' * 1000)\n  except OSError: pass"
    assert reason_of(sandbox, candidate) == "exit"


def test_the_number_of_processes_is_limited(sandbox):
    candidate = (
        "import os, time\nn = 0\ntry:\n  while n < 1000:\n    if os.fork() == 0:\n      time.sleep(60)\n    n += 1\n"
        "except BlockingIOError: pass\nassert 1 < n < 100, n"
    )
    verdict = sandbox.run(Program(candidate=candidate, test=""), 5.0)
    assert verdict.passed, verdict


def test_outside_files_are_neither_seen_nor_written(sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    for place in (secret, "/etc/shadow", os.path.expanduser("~/.profile"), os.path.abspath(__file__)):
        assert reason_of(sandbox, f"open({str(place)!r})") == "exception:FileNotFoundError"
    for place in ("/x", "/usr/x", "/dev/x", os.path.join(os.path.dirname(os.__file__), "x")):
        assert reason_of(sandbox, f"open({place!r}, 'w')") in ("exception:OSError", "exception:PermissionError")


def test_every_program_finds_an_empty_work_folder_of_limited_size(sandbox):
    prefixes = [Path(prefix).parts for prefix in (sys.prefix, sys.base_prefix)]
    own = {parts[2] for parts in prefixes if parts[:2] == ("/", "tmp")}  # a Python installed below /tmp is seen there
    look = f"import os\nassert sorted(os.listdir('.')) == sorted(os.listdir('/tmp')) == {sorted(own)!r}\nopen('left', 'w')"
    assert [reason_of(sandbox, look) for _ in range(2)] == ["passed", "passed"]
    assert reason_of(sandbox, "open('big', 'wb').write(bytes(65 << 20))") == "exception:OSError"


def test_the_hosts_environment_is_not_visible(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "s")
    assert reason_of(sandbox, "import os\nassert 'SECRET_TOKEN' not in os.environ") == "passed"


def test_there_is_no_network(sandbox):
    candidate = "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)"
    assert reason_of(sandbox, candidate).startswith("exception:")
    assert reason_of(sandbox, "import os\nassert len(open('/proc/net/dev').readlines()) == 3") == "passed"  # loopback only


def test_only_its_own_processes_can_be_signalled(sandbox):
    candidate = "import os\npids = [int(p) for p in os.listdir('/proc') if p.isdecimal()]\nassert max(pids) < 100, pids"
    assert reason_of(sandbox, candidate) == "passed"
    reason_of(sandbox, "import os\nos.kill(-1, 9)")
    assert reason_of(sandbox, "pass") == "passed"


def test_programs_have_no_privileges(sandbox):
    candidate = (
        "import os\nfacts = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())\n"
        "assert int(facts['CapEff'], 16) == int(facts['CapPrm'], 16) == 0 and facts['NoNewPrivs'].strip() == '1'\n"
        "assert os.getuid() != 0 and os.geteuid() != 0"
    )
    verdict = sandbox.run(Program(candidate=candidate, test=""), 3.0)
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    "candidate",
    [
        "try: input()\nexcept EOFError: pass",
        "print('x' * 10**6)",
        "import threading\nt = threading.Thread(target=print)\nt.start(); t.join()",
        "import tempfile\ntempfile.NamedTemporaryFile().write(b'x')",
        "def f(n): return n and f(n - 1)\nf(900)",
        "import sys\nsys.setrecursionlimit(5000)\ndef f(n): return n and f(n - 1)\nf(3000)",
        "x = bytearray(600 << 20)",
        "s = 'žluťoučký \U0001f40e'\nassert len(s) == 11",
        "import warnings\nwarnings.warn('x')",
        "import numpy\nassert numpy.ones((50, 50)).dot(numpy.ones(50)).sum() == 2500",
        "assert __name__ != '__main__'",
    ],
)
def test_honest_but_odd_programs_pass(sandbox, candidate):
    verdict = sandbox.run(Program(candidate=candidate, test=""), 5.0)
    assert verdict.passed, verdict


def test_a_50_mb_program_passes(sandbox):
    assert reason_of(sandbox, "#" * 50_000_000, test="\nx = 1", timeout_s=5.0) == "passed"


def test_an_always_hostile_message_is_contained(sandbox):
    candidate = "class E(Exception):\n  def __str__(self): raise SystemExit(0)\nE.__name__ = 'x passed\\npassed'\nraise E"
    assert not sandbox.run(Program(candidate=candidate, test=""), 3.0).passed


def test_verdicts_come_back_under_their_index(sandbox):
    programs = [Program(candidate=f"assert {i} % 3", test="") for i in range(9)]
    verdicts = dict(sandbox.run_all(programs, timeout_s=3.0, num_workers=2))
    assert {i: verdict.passed for i, verdict in verdicts.items()} == {i: i % 3 != 0 for i in range(9)}


def test_a_timeout_beside_others_is_run_again_alone(sandbox, monkeypatch):
    calls = []
    busy = threading.Lock()

    def run(program, timeout_s):
        calls.append(program.candidate)
        first = calls.count(program.candidate) == 1
        if not first:
            assert busy.acquire(blocking=False)
            busy.release()
        return Verdict(reason="timeout" if program.candidate == "slow" and first else "passed", detail="", seconds=0.0)

    monkeypatch.setattr(sandbox, "run", run)
    programs = [Program(candidate=name, test="") for name in ("slow", "a", "b")]
    assert {i: v.reason for i, v in sandbox.run_all(programs, 1.0, num_workers=2)} == dict.fromkeys(range(3), "passed")
    assert calls[-1] == "slow" and len(calls) == 4


def test_stopping_early_leaves_nothing_running():
    try:
        own = Sandbox.open()
    except InputError as error:
        pytest.skip(str(error))
    programs = [Program(candidate="", test=""), *[Program(candidate="import time\ntime.sleep(60)", test="")] * 2]
    verdicts = own.run_all(programs, timeout_s=3.0, num_workers=2)
    next(verdicts)
    verdicts.close()
    assert not own._running


def test_without_bubblewrap_it_refuses_and_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="apt-get install bubblewrap"):
        Sandbox.open()


def test_a_bubblewrap_that_does_not_work_is_refused(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: str(broken))
    with pytest.raises(InputError, match=r"No permissions to create new namespace.*apt-get install bubblewrap"):
        Sandbox.open()


def test_the_unsafe_tier_is_named_and_keeps_the_limits():
    unsafe = Sandbox.open(unsafe=True, limits=Limits(memory_bytes=1 << 30))
    assert unsafe.tier == "none"
    assert reason_of(unsafe, "assert 1 + 1 == 2") == "passed"
    assert reason_of(unsafe, "while True: pass", timeout_s=0.2) == "timeout"
    assert reason_of(unsafe, "x = bytearray(2 << 30)") == "memory"


def test_a_changed_part_changes_the_digest():
    base = Program(candidate="a", test="b")
    others = (Program(candidate="ab", test=""), Program(candidate="a", test="c"), Program(candidate="\ud800", test="b"))
    assert len({program.digest() for program in (base, *others)}) == 4
