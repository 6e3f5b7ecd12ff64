import contextlib
import dataclasses
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import venv
from pathlib import Path

import pytest

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.sandbox import bubblewrap, tiers
from wizardcoder_jax.sandbox import sandbox as sandbox_module
from wizardcoder_jax.sandbox.inside import confine, seccomp
from wizardcoder_jax.sandbox.inside.codec import CodecError
from wizardcoder_jax.sandbox.inside.decoder import Decoder
from wizardcoder_jax.sandbox.inside.encoder import Encoder
from wizardcoder_jax.sandbox.limits import Limits
from wizardcoder_jax.sandbox.program_runner import ProgramRunner
from wizardcoder_jax.sandbox.sandbox import Sandbox
from wizardcoder_jax.sandbox.toolchains import LANGUAGES, check_libraries, javatuples, toolchain, toolchains
from wizardcoder_jax.sandbox.verdict import Verdict

TIERS = ("bubblewrap", "landlock")


def opened(tier, **settings):
    """Hostile programs run in here only: with no isolation they would reach this machine."""
    try:
        return Sandbox.open(tier=tier, **settings)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def sandbox():
    made = opened("bubblewrap")
    yield made
    made.stop()


@pytest.fixture(scope="module", params=TIERS)
def each(request):
    made = opened(request.param)
    yield made
    made.stop()


def called(sandbox, candidate, test, timeout_s=3.0, **more):
    """The verdict with candidate and test in two processes."""
    return sandbox.run(Program(candidate=candidate, test=test, entry_point="f", **more), timeout_s)


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
    assert called(sandbox, candidate + "\ndef f(): return 1", "assert f() == 1").reason == "exit"


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


def test_a_50_mb_program_passes(sandbox):
    assert reason_of(sandbox, "#" * 50_000_000, test="\nx = 1", timeout_s=5.0) == "passed"


def test_an_always_hostile_message_is_contained(sandbox):
    candidate = "class E(Exception):\n  def __str__(self): raise SystemExit(0)\nE.__name__ = 'x passed\\npassed'\nraise E"
    assert not sandbox.run(Program(candidate=candidate, test=""), 3.0).passed


def test_verdicts_come_back_under_their_index(sandbox):
    programs = [Program(candidate=f"assert {i} % 3", test="") for i in range(9)]
    verdicts = dict(ProgramRunner(sandbox, timeout_s=3.0, num_workers=2).run_all(dict(enumerate(programs))))
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
    verdicts = ProgramRunner(sandbox, timeout_s=1.0, num_workers=2).run_all(dict(enumerate(programs)))
    assert {i: verdict.reason for i, verdict in verdicts} == dict.fromkeys(range(3), "passed")
    assert calls[-1] == "slow" and len(calls) == 4


def test_stopping_early_leaves_nothing_running():
    try:
        own = Sandbox.open()
    except InputError as error:
        pytest.skip(str(error))
    programs = [Program(candidate="", test=""), *[Program(candidate="import time\ntime.sleep(60)", test="")] * 2]
    verdicts = ProgramRunner(own, timeout_s=3.0, num_workers=2).run_all(dict(enumerate(programs)))
    next(verdicts)
    verdicts.close()
    assert not own._running and not own._idle


def without_landlock(monkeypatch):
    monkeypatch.setattr(sandbox_module, "missing_for_landlock", lambda: "this kernel has no Landlock")


def test_without_bubblewrap_landlock_is_used(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    if tiers.missing_for_landlock():
        pytest.skip("no Landlock here")
    own = Sandbox.open()
    assert own.tier == "landlock"
    own.stop()


def test_without_any_tier_it_refuses_and_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    without_landlock(monkeypatch)
    with pytest.raises(InputError, match=r"bubblewrap is missing; this kernel has no Landlock; .*apt-get install bubblewrap"):
        Sandbox.open()


def test_a_bubblewrap_that_does_not_work_is_refused(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: str(broken))
    without_landlock(monkeypatch)
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
    changes = (
        {"candidate": "ab", "test": ""}, {"test": "c"}, {"candidate": "\ud800"}, {"entry_point": "f"}, {"helpers": ("f",)},
        {"helpers": ("f", "g")}, {"language": "js"}, {"python": "/usr/bin/python3"},
    )  # fmt: skip
    assert len({base.digest(), *(dataclasses.replace(base, **change).digest() for change in changes)}) == 1 + len(changes)


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
def test_called_from_another_process_each_way_of_ending_has_its_reason(each, candidate, test, reason):
    verdict = called(each, candidate, test, timeout_s=0.5)
    assert (verdict.reason, verdict.forgeable) == (reason, False), verdict


def test_a_test_that_hands_over_its_own_objects_runs_in_one_interpreter_and_is_marked(sandbox):
    verdict = called(sandbox, "def f(node): return node.value", "class Node: value = 3\nassert f(Node()) == 3")
    assert verdict.passed and verdict.forgeable


def test_a_candidate_cannot_bring_its_test_into_its_interpreter(sandbox):
    candidate = (
        "class A:\n  __eq__ = lambda s, o: True\n  __reduce__ = __len__ = None\ndef f(x=None): return A() if x is None else x"
    )
    verdict = called(sandbox, candidate, "assert f(f()) == 3")
    assert (verdict.reason, verdict.forgeable) == ("assertion", False)


def test_helpers_of_the_candidate_can_be_called(sandbox):
    candidate = (
        "class Pair:\n  def __init__(self, a, b): self.a, self.b = a, b\ndef f(pairs): return sum(p.a * p.b for p in pairs)"
    )
    test = "assert f([Pair(1, 2), Pair(3, 4)]) == 14"
    assert called(sandbox, candidate, test, helpers=("Pair",)).passed
    assert called(sandbox, candidate, test).reason == "exception:NameError"


def test_a_call_that_the_test_interrupts_cannot_be_gone_on_with(sandbox):
    test = (
        "import signal\nclass Late(Exception): pass\ndef late(*a): raise Late\nsignal.signal(signal.SIGALRM, late)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.1)\ntry: f(5)\nexcept Late: pass\nelse: assert False\nassert f(0) == 1"
    )
    assert called(sandbox, "import time\ndef f(s):\n  time.sleep(s)\n  return 1", test).reason == "exit"


def test_the_memory_of_all_processes_together_is_limited(each):
    own = opened(each.tier, limits=Limits(memory_bytes=400 << 20))
    candidate = (
        "import os, time\ndef f():\n  for _ in range(8):\n    if os.fork() == 0:\n      x = bytearray(b'x') * (100 << 20)\n"
        "      time.sleep(30)\n  time.sleep(30)"
    )
    verdict = called(own, candidate, "f()")
    own.stop()
    assert (verdict.reason, verdict.detail) == ("memory", "all processes together")


def test_a_zygote_that_died_is_replaced(each):
    assert called(each, "def f(): return 1", "assert f() == 1").passed
    (worker,) = each._idle[None, "python"]
    subprocess.run(["kill", "-9", str(worker._process.pid)], check=True)
    worker._process.wait()
    assert called(each, "def f(): return 1", "assert f() == 1").passed


def test_an_unknown_tier_is_refused(monkeypatch):
    monkeypatch.setenv("WIZARDCODER_SANDBOX", "docker")
    with pytest.raises(InputError, match="WIZARDCODER_SANDBOX=docker: no such tier; choose bubblewrap or landlock"):
        Sandbox.open()


SMALL = {  # language -> (candidate, test that holds, test that does not, reason then)
    "js": (
        "function f(x) { return x + 1 }\n",
        "require('assert').strictEqual(f(1), 2);",
        "require('assert').strictEqual(f(1), 3);",
        "assertion",
    ),
    "sh": ("f() { echo $(($1 + 1)); }\n", '[ "$(f 1)" = 2 ] || exit 1', '[ "$(f 1)" = 3 ] || exit 1', "exit"),
    "cpp": (
        "#include <cassert>\nint f(int x) { return x + 1; }\n",
        "int main() { assert(f(1) == 2); }",
        "int main() { assert(f(1) == 3); }",
        "assertion",
    ),
    "java": (
        "class Problem { static int f(int x) { return x + 1; }\n",
        "public static void main(String[] a) { assert f(1) == 2; } }",
        "public static void main(String[] a) { assert f(1) == 3; } }",
        "assertion",
    ),
    "rs": (
        "fn f(x: i32) -> i32 { x + 1 }\n",
        "fn main() { assert_eq!(f(1), 2); }",
        "fn main() { assert_eq!(f(1), 3); }",
        "assertion",
    ),
    "php": (
        "<?php function f($x) { return $x + 1; }\n",
        "if (f(1) !== 2) { throw new Exception('no'); }",
        "if (f(1) !== 3) { throw new Exception('no'); }",
        "exception:Exception",
    ),
    "r": ("f <- function(x) x + 1\n", "if (f(1) != 2) quit(status = 1)", "if (f(1) != 3) quit(status = 1)", "exit"),
    "go": (
        'package f_test\nimport "testing"\nfunc f(x int) int { return x + 1 }\n',
        'func TestF(t *testing.T) { if f(1) != 2 { t.Errorf("no") } }',
        'func TestF(t *testing.T) { if f(1) != 3 { t.Errorf("no") } }',
        "assertion",
    ),
}


def is_there(language):
    """Whether its toolchain is; one that is not has to be named before anything runs."""
    try:
        toolchain(language)
    except InputError as error:
        assert re.match(rf"{language} programs cannot run: \S+ .*is missing; apt-get install \S+", str(error))
        return False
    return True


@pytest.mark.parametrize("language", SMALL)
def test_programs_of_other_languages_are_compiled_and_run(each, language):
    candidate, right, wrong, reason = SMALL[language]
    if not is_there(language):
        with pytest.raises(InputError, match=f"{language} programs cannot run"):
            each.run(Program(candidate=candidate, test=right, language=language), 5.0)
        return
    verdicts = [each.run(Program(candidate=candidate, test=test, language=language), 5.0) for test in (right, wrong)]
    assert [verdict.reason for verdict in verdicts] == ["passed", reason], verdicts
    assert all(verdict.forgeable for verdict in verdicts)
    broken = each.run(Program(candidate="@@ ( {", test=right, language=language), 5.0)
    assert not broken.passed and broken.reason != "sandbox"


@pytest.mark.parametrize(("language", "leaves"), [("js", "process.exit(0)\n"), ("sh", "exit 0\n")])
def test_leaving_early_is_not_passing_in_scripts(each, language, leaves):
    if not is_there(language):
        return
    assert each.run(Program(candidate=leaves, test="", language=language), 5.0).reason == "exit"


def test_other_languages_are_isolated_and_limited(each, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    read = each.run(Program(candidate=f"cat {secret}\n", test="[ $? = 0 ] || exit 1", language="sh"), 3.0)
    assert read.reason == "exit"
    assert each.run(Program(candidate="yes\n", test="", language="sh"), 0.3).reason == "timeout"


def test_every_toolchain_is_there_or_named_as_missing(monkeypatch):
    assert set(toolchains()) == set(LANGUAGES)
    toolchain.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="js programs cannot run: node is missing; apt-get install nodejs"):
        toolchain("js")
    toolchain.cache_clear()
    with pytest.raises(InputError, match="no language 'cobol'; known: python, js"):
        toolchain("cobol")


def test_java_needs_a_library(monkeypatch, tmp_path):
    monkeypatch.setenv("CLASSPATH", "")
    if javatuples() is None:
        with pytest.raises(InputError, match="javatuples"):
            check_libraries("java")
    (tmp_path / "javatuples-1.2.jar").write_bytes(b"")
    monkeypatch.setenv("CLASSPATH", f"x.jar:{tmp_path / 'javatuples-1.2.jar'}")
    check_libraries("java")


def test_a_missing_toolchain_is_found_before_anything_runs(sandbox):
    programs = [Program(candidate="", test=""), Program(candidate="", test="", language="cobol")]
    with pytest.raises(InputError, match="no language 'cobol'"):
        next(ProgramRunner(sandbox, timeout_s=3.0, num_workers=1).run_all(dict(enumerate(programs))))


def test_another_interpreter_runs_programs(sandbox):
    other = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if os.path.exists(path)), None)
    if other is None or os.path.realpath(other) == os.path.realpath(sys.executable):
        pytest.skip("no other Python here; apt-get install python3")
    verdict = called(
        sandbox, "import sys\ndef f(): return sys.executable", f"assert f() == {os.path.realpath(other)!r}", python=other
    )
    assert verdict.passed, verdict
    with pytest.raises(InputError, match="--python /nowhere/python does not run"):
        called(sandbox, "", "", python="/nowhere/python")


def test_packages_of_an_interpreter_below_tmp_are_seen(sandbox):
    """Each job has a /tmp of its own, and still sees these."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        venv.create(folder, symlinks=True)
        [packages] = Path(folder).glob("lib/python*/site-packages")
        (packages / "only_there.py").write_text("x = 5\n")
        python = os.path.join(folder, "bin/python")
        verdict = called(sandbox, "def f():\n    import only_there\n    return only_there.x", "assert f() == 5", python=python)
    assert verdict.passed, verdict


def test_the_filter_is_well_formed_on_both_processors(monkeypatch):
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr(seccomp.platform, "machine", lambda machine=machine: machine)
        for namespaces in (False, True):
            around = seccomp.FilterContext(namespaces=namespaces, own_uid=False, signals_scoped=False)
            code = seccomp.program(around, pid=1)
            operations = [struct.unpack_from("<HBBI", code, i) for i in range(0, len(code), 8)]
            for i, (kind, if_true, if_false, _) in enumerate(operations):
                if kind & 7 == 5:  # a jump stays inside, and does not leave the program without an answer
                    assert i + 1 + max(if_true, if_false) < len(operations)
            assert operations[-1] == (6, 0, 0, 0x7FFF0000)


@pytest.mark.parametrize("header", ["x86_64-linux-gnu/asm/unistd_64.h", "asm-generic/unistd.h"])
def test_the_numbers_of_system_calls_are_the_kernels(header):
    path = Path("/usr/include", header)
    if not path.exists():
        pytest.skip(f"no {path}; apt-get install linux-libc-dev")
    numbers = {}
    for found in re.finditer(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()):
        numbers.setdefault(found[1], int(found[2]))
    column = 0 if "x86" in header else 1
    known = {
        **seccomp.REFUSED,
        **seccomp.REFUSED_WITHOUT_NAMESPACES,
        **seccomp.REFUSED_WITHOUT_OWN_UID,
        **seccomp.SIGNALS_BY_PID,
    }
    wrong = {name: both for name, both in known.items() if name in numbers and both[column] != numbers[name]}
    assert not wrong
    assert len(numbers.keys() & known.keys()) > 90


def test_limits_are_never_raised(monkeypatch):
    set_to = []
    monkeypatch.setattr(confine.resource, "getrlimit", lambda kind: (50, 100))
    monkeypatch.setattr(confine.resource, "setrlimit", lambda kind, pair: set_to.append(pair))
    confine.lower_limit(0, 80)
    confine.lower_limit(0, 400)
    assert set_to == [(80, 80), (100, 100)]


@pytest.mark.parametrize(
    "value",
    [
        [(1, 2)] * 5,
        [("a", "")] * 5,
        [(1.5,)] * 5,
        [(1, "a")] * 5,
        [()] * 5,
        [(1 << 70, 2)] * 5,
        ["", "\ud83d", "\ude00", "é"],
        [True, 1, 2, 3],
        [(1, 2), (3,), (4, 5), (6, 7)],
        {(1, 2), (3, 4), (5, 6), (7, 8)},
        {(1, 2): 3, (4, 5): 6, (7, 8): 9, (0, 0): 0},
    ],
)
def test_values_cross_unchanged(value):
    def no_handle(*_):
        raise CodecError("no handle")

    found = Decoder(Encoder(no_handle).encode(value), no_handle).decode()
    assert found == value and repr(found) == repr(value)


def test_no_message_is_believed():
    def no_handle(*_):
        raise CodecError("no handle")

    whole = bytes(Encoder(no_handle).encode([[(1, 2)] * 5, ["ab", "c", "d", "e"], {"k": {1.5}}, 1 << 99, ("x", b"y", None)]))
    generator = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            damaged[generator.randrange(len(damaged))] = generator.choice(b"xmqfsltdezNTFUAMrRDQVYhH\x00\x01\xff")
        with contextlib.suppress(CodecError):
            Decoder(damaged[: generator.randint(1, len(damaged))], no_handle).decode()
