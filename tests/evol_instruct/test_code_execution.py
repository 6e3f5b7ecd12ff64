import asyncio
import contextlib
import sqlite3
import threading

import pytest

from wizardcoder_jax.core.errors import InputError, StoppedEarlyError
from wizardcoder_jax.evol_instruct.code_execution import CodeExecution
from wizardcoder_jax.evol_instruct.execution_filter import ExecutionResult
from wizardcoder_jax.sandbox.sandbox import Sandbox
from wizardcoder_jax.sandbox.verdict import Verdict


class NamedEndings:
    """A sandbox in which the name of a program decides how it ends."""

    def __init__(self):
        self.ran, self.num_running, self.max_running, self.alone, self._lock = [], 0, 0, [], threading.Lock()
        self.meet = threading.Barrier(2)

    def check_tools(self, programs):
        pass

    def run(self, program, timeout_s):
        with self._lock:
            self.num_running += 1
            self.max_running = max(self.max_running, self.num_running)
            self.ran.append(program.candidate)
        if program.candidate.startswith("together"):
            self.meet.wait(600)
        with self._lock:
            is_second = self.ran.count(program.candidate) > 1
            if is_second:
                self.alone.append(self.num_running == 1)
            self.num_running -= 1
        reason = "timeout" if program.candidate.startswith("slow") and not is_second else "passed"
        reason = "sandbox" if program.candidate == "broken" else reason
        return Verdict(reason=reason, detail="", seconds=0.0)

    def stop(self):
        pass


def run_all(sandbox, folder, *programs, num_workers=2):
    async def gather(execute):
        return await asyncio.gather(*(execute(code, "") for code in programs))

    with CodeExecution(sandbox, folder / "e.sqlite", timeout_s=1.0, num_workers=num_workers) as execute:
        return [ending.reason for ending in asyncio.run(gather(execute))]


def test_as_many_programs_run_at_once_as_there_are_workers(tmp_path):
    sandbox = NamedEndings()
    assert run_all(sandbox, tmp_path, "together 1", "together 2", *map(str, range(20))) == ["passed"] * 22
    assert sandbox.max_running == 2


def test_a_timeout_among_others_is_confirmed_alone(tmp_path):
    sandbox = NamedEndings()
    assert run_all(sandbox, tmp_path, "slow 1", *map(str, range(9)), "slow 2") == ["passed"] * 11
    assert sandbox.alone == [True, True]


def test_each_program_runs_once_and_its_first_result_is_kept(tmp_path):
    sandbox = NamedEndings()
    assert run_all(sandbox, tmp_path, "a", "a", "b") == ["passed"] * 3
    assert run_all(sandbox, tmp_path, "b", "a") == ["passed"] * 2
    assert sorted(sandbox.ran) == ["a", "b"]


def test_after_a_sandbox_failure_the_next_run_tries_again(tmp_path):
    sandbox = NamedEndings()
    assert run_all(sandbox, tmp_path, "broken", num_workers=1) == ["sandbox"]
    assert run_all(sandbox, tmp_path, "broken", num_workers=1) == ["sandbox"]
    assert sandbox.ran == ["broken", "broken"]


@pytest.mark.parametrize(
    ("code", "test", "reason"),
    [
        ("def f(): return 1", "assert f() == 1", "passed"),
        ("def f(): return 1", "assert f() == 2", "assertion"),
        ("def f(:", "", "syntax"),
        ("import no_such_package_here", "", "exception:ModuleNotFoundError"),
        ("input()", "", "exception:EOFError"),
        ("while True: pass", "", "timeout"),
    ],
)
def test_real_programs_have_the_results_that_the_filter_expects(tmp_path, code, test, reason):
    timeout_s = 0.3 if reason == "timeout" else 10.0
    with CodeExecution(Sandbox.open(), tmp_path / "e.sqlite", timeout_s=timeout_s, num_workers=1) as execute:
        ending = asyncio.run(execute(code, test))
    assert isinstance(ending, ExecutionResult) and ending.reason == reason


def test_a_damaged_file_of_results_is_an_error(tmp_path):
    (tmp_path / "e.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=r"e\.sqlite cannot be used .* move or rename it"):
        run_all(NamedEndings(), tmp_path, "1")


def test_a_full_disk_stops_the_run_so_that_it_can_resume(tmp_path):
    async def run_many(execute):
        execute._results.execute("PRAGMA max_page_count = 2")
        return await asyncio.gather(*(execute(f"{i}" * 9000, "") for i in range(200)))

    with pytest.raises(StoppedEarlyError, match=r"e\.sqlite .* free disk space"):  # noqa: SIM117
        with CodeExecution(NamedEndings(), tmp_path / "e.sqlite", timeout_s=1.0, num_workers=1) as execute:
            asyncio.run(run_many(execute))
    with contextlib.closing(sqlite3.connect(tmp_path / "e.sqlite")) as endings:
        assert endings.execute("SELECT count(*) FROM endings").fetchone()[0] > 0
