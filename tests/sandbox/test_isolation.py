import os
import sys
from pathlib import Path

from tests.helpers.sandbox_runs import open_or_skip, run_separately, run_together
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.sandbox.limits import Limits


def reason_of(sandbox, candidate, test="", **options):
    return run_together(sandbox, candidate, test, **options).reason


def test_an_endless_loop_ends_at_the_cpu_limit(sandbox):
    verdict = sandbox.run(Program(candidate="while True: pass", test=""), 0.3)
    assert (verdict.reason, verdict.detail) == ("timeout", "CPU limit")


def test_ignoring_timer_signals_does_not_extend_the_time_limit(sandbox):
    candidate = "import signal\nsignal.signal(signal.SIGPROF, signal.SIG_IGN)\nsignal.setitimer(signal.ITIMER_PROF, 0)\n"
    candidate += "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert reason_of(sandbox, candidate, timeout_s=0.2) == "timeout"


def test_endless_output_ends_at_the_time_limit(sandbox):
    assert reason_of(sandbox, "while True: print('x' * 10000)", timeout_s=0.3) == "timeout"


def test_flooding_the_verdict_connection_ends_the_program(sandbox):
    candidate = "import os\nfor fd in range(3, 10):\n  try:\n    while True: os.write(fd, b'x' * 1000)\n  except OSError: pass"
    assert reason_of(sandbox, candidate) == "exit"
    assert run_separately(sandbox, candidate + "\ndef f(): return 1", "assert f() == 1").reason == "exit"


def test_the_number_of_processes_is_limited(sandbox):
    candidate = (
        "import os, time\nn = 0\ntry:\n  while n < 1000:\n    if os.fork() == 0:\n      time.sleep(600)\n    n += 1\n"
        "except BlockingIOError: pass\nassert 1 < n < 100, n"
    )
    verdict = run_together(sandbox, candidate)
    assert verdict.passed, verdict


def test_the_memory_of_all_processes_together_is_limited(each_tier):
    opened = open_or_skip(each_tier.tier, limits=Limits(memory_bytes=400 << 20))
    candidate = (
        "import os, time\ndef f():\n  for _ in range(8):\n    if os.fork() == 0:\n      x = bytearray(b'x') * (100 << 20)\n"
        "      time.sleep(600)\n  time.sleep(600)"
    )
    verdict = run_separately(opened, candidate, "f()")
    opened.stop()
    assert (verdict.reason, verdict.detail) == ("memory", "all processes together")


def test_files_outside_can_neither_be_read_nor_written(sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    for path in (secret, "/etc/shadow", os.path.expanduser("~/.profile"), os.path.abspath(__file__)):
        assert reason_of(sandbox, f"open({str(path)!r})") == "exception:FileNotFoundError"
    for path in ("/x", "/usr/x", "/dev/x", os.path.join(os.path.dirname(os.__file__), "x")):
        assert reason_of(sandbox, f"open({path!r}, 'w')") in ("exception:OSError", "exception:PermissionError")


def test_every_program_gets_an_empty_work_folder_of_limited_size(sandbox):
    prefixes = [Path(prefix).parts for prefix in (sys.prefix, sys.base_prefix)]
    visible = {parts[2] for parts in prefixes if parts[:2] == ("/", "tmp")}  # a Python installation below /tmp is visible there
    program = (
        f"import os\nassert sorted(os.listdir('.')) == sorted(os.listdir('/tmp')) == {sorted(visible)!r}\nopen('left', 'w')"
    )
    assert [reason_of(sandbox, program) for _ in range(2)] == ["passed", "passed"]
    assert reason_of(sandbox, "open('big', 'wb').write(bytes(65 << 20))") == "exception:OSError"


def test_environment_variables_of_the_host_are_not_visible(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "s")
    opened = open_or_skip("bubblewrap")
    assert reason_of(opened, "import os\nassert 'SECRET_TOKEN' not in os.environ") == "passed"
    opened.stop()


def test_there_is_no_network(sandbox):
    candidate = "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)"
    assert reason_of(sandbox, candidate).startswith("exception:")
    assert reason_of(sandbox, "import os\nassert len(open('/proc/net/dev').readlines()) == 3") == "passed"  # loopback only


def test_a_program_can_signal_only_its_own_processes(sandbox):
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
    verdict = run_together(sandbox, candidate)
    assert verdict.passed, verdict
