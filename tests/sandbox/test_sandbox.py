import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest

from tests.helpers.sandbox_runs import TIMEOUT_S, run_separately, run_together
from wizardcoder_jax.core.errors import InputError


def reason_of(sandbox, candidate, test="", **options):
    return run_together(sandbox, candidate, test, **options).reason


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
def test_each_kind_of_ending_has_its_reason(sandbox, candidate, reason):
    assert reason_of(sandbox, candidate) == reason


@pytest.mark.parametrize(
    ("candidate", "test", "reason"),
    [
        ("def f(): return 1", "assert f() == 1", "passed"),
        ("def f(): return 2", "assert f() == 1", "assertion"),
        ("def f(): raise KeyError('x')", "f()", "exception:KeyError"),
        ("class Odd(Exception): pass\ndef f(): raise Odd", "f()", "exception:Odd"),
        ("raise KeyError('x')", "f()", "exception:KeyError"),
        ("def g(): pass", "f()", "exception:NameError"),
        ("def f(:", "f()", "syntax"),
        ("x = '\0'", "f()", "syntax"),
        ("def f(): return f()", "f()", "exception:RecursionError"),
        ("def f(): return bytearray(10**11)", "f()", "memory"),
        ("def f(): raise SystemExit(0)", "f()", "exit"),
        ("import os\ndef f(): os._exit(0)", "try: f()\nexcept BaseException: pass", "exit"),
        ("def f():\n  while True: pass", "f()", "timeout"),
        ("def f(): return 1", "while f(): pass", "timeout"),
    ],
)
def test_each_kind_of_ending_has_its_reason_in_separate_processes(each_tier, candidate, test, reason):
    verdict = run_separately(each_tier, candidate, test, timeout_s=0.3 if reason == "timeout" else TIMEOUT_S)
    assert (verdict.reason, verdict.forgeable) == (reason, False), verdict


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
def test_exiting_early_or_printing_does_not_pass(sandbox, candidate):
    verdict = run_together(sandbox, candidate, "\nassert f() == 1")
    assert not verdict.passed
    assert verdict.reason != "sandbox"


def test_an_exception_with_a_hostile_message_does_not_pass(sandbox):
    candidate = "class E(Exception):\n  def __str__(self): raise SystemExit(0)\nE.__name__ = 'x passed\\npassed'\nraise E"
    assert not run_together(sandbox, candidate).passed


def test_a_candidate_cannot_pull_its_test_into_its_own_interpreter(sandbox):
    candidate = (
        "class A:\n  __eq__ = lambda s, o: True\n  __reduce__ = __len__ = None\ndef f(x=None): return A() if x is None else x"
    )
    verdict = run_separately(sandbox, candidate, "assert f(f()) == 3")
    assert (verdict.reason, verdict.forgeable) == ("assertion", False)


def test_a_test_that_passes_its_own_objects_runs_in_one_interpreter_and_is_marked_forgeable(sandbox):
    verdict = run_separately(sandbox, "def f(node): return node.value", "class Node: value = 3\nassert f(Node()) == 3")
    assert verdict.passed and verdict.forgeable


def test_the_test_can_call_helpers_of_the_candidate(sandbox):
    candidate = (
        "class Pair:\n  def __init__(self, a, b): self.a, self.b = a, b\ndef f(pairs): return sum(p.a * p.b for p in pairs)"
    )
    test = "assert f([Pair(1, 2), Pair(3, 4)]) == 14"
    assert run_separately(sandbox, candidate, test, helpers=("Pair",)).passed
    assert run_separately(sandbox, candidate, test).reason == "exception:NameError"


def test_no_call_succeeds_after_the_test_has_interrupted_one(sandbox):
    test = (
        "import signal\nclass Late(Exception): pass\ndef late(*a): raise Late\nsignal.signal(signal.SIGALRM, late)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.1)\ntry: f(5)\nexcept Late: pass\nelse: assert False\nassert f(0) == 1"
    )
    assert run_separately(sandbox, "import time\ndef f(s):\n  time.sleep(s)\n  return 1", test).reason == "exit"


def test_a_zygote_that_has_died_is_replaced(each_tier):
    assert run_separately(each_tier, "def f(): return 1", "assert f() == 1").passed
    (worker,) = each_tier._idle[None, "python"]
    subprocess.run(["kill", "-9", str(worker._process.pid)], check=True)
    worker._process.wait()
    assert run_separately(each_tier, "def f(): return 1", "assert f() == 1").passed


def test_another_interpreter_can_run_programs(sandbox):
    other = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if os.path.exists(path)), None)
    if other is None or os.path.realpath(other) == os.path.realpath(sys.executable):
        pytest.skip("no other Python here; apt-get install python3")
    candidate, test = "import sys\ndef f(): return sys.executable", f"assert f() == {os.path.realpath(other)!r}"
    verdict = run_separately(sandbox, candidate, test, python=other)
    assert verdict.passed, verdict
    with pytest.raises(InputError, match="--python /nowhere/python does not run"):
        run_separately(sandbox, "", "", python="/nowhere/python")


def test_packages_of_an_interpreter_below_tmp_are_visible(sandbox):
    """Each job mounts its own /tmp, which must still show these packages."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        venv.create(folder, symlinks=True)
        [packages] = Path(folder).glob("lib/python*/site-packages")
        (packages / "only_there.py").write_text("x = 5\n")
        python = os.path.join(folder, "bin/python")
        candidate = "def f():\n    import only_there\n    return only_there.x"
        verdict = run_separately(sandbox, candidate, "assert f() == 5", python=python)
    assert verdict.passed, verdict


def test_a_program_of_50_megabytes_passes(sandbox):
    assert reason_of(sandbox, "#" * 50_000_000, test="\nx = 1", timeout_s=60.0) == "passed"
