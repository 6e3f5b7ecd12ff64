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


class Counting:
    """A sandbox whose programs are the names of what becomes of them."""

    def __init__(self):
        self.ran, self.now, self.most, self.alone, self._lock = [], 0, 0, [], threading.Lock()
        self.meet = threading.Barrier(2)

    def run(self, program, timeout_s):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.ran.append(program.candidate)
        if program.candidate.startswith("together"):
            self.meet.wait(30)
        with self._lock:
            is_second = self.ran.count(program.candidate) > 1
            if is_second:
                self.alone.append(self.now == 1)
            self.now -= 1
        reason = "timeout" if program.candidate.startswith("slow") and not is_second else "passed"
        reason = "sandbox" if program.candidate == "broken" else reason
        return Verdict(reason=reason, detail="", seconds=0.0)

    def stop(self):
        pass


def run_all(sandbox, folder, *programs, num_workers=2):
    async def gathered(trials):
        return await asyncio.gather(*(trials(code, "") for code in programs))

    with CodeExecution(sandbox, folder / "e.sqlite", timeout_s=1.0, num_workers=num_workers) as trials:
        return [ending.reason for ending in asyncio.run(gathered(trials))]


def test_programs_run_side_by_side_and_no_more_than_the_workers(tmp_path):
    sandbox = Counting()
    assert run_all(sandbox, tmp_path, "together 1", "together 2", *map(str, range(20))) == ["passed"] * 22
    assert sandbox.most == 2


def test_a_timeout_beside_others_is_run_again_alone(tmp_path):
    sandbox = Counting()
    assert run_all(sandbox, tmp_path, "slow 1", *map(str, range(9)), "slow 2") == ["passed"] * 11
    assert sandbox.alone == [True, True]


def test_each_program_runs_once_and_its_first_ending_stays(tmp_path):
    sandbox = Counting()
    assert run_all(sandbox, tmp_path, "a", "a", "b") == ["passed"] * 3
    assert run_all(sandbox, tmp_path, "b", "a") == ["passed"] * 2
    assert sorted(sandbox.ran) == ["a", "b"]


def test_a_sandbox_that_failed_is_tried_again_by_the_next_run(tmp_path):
    sandbox = Counting()
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
def test_real_programs_end_in_the_sandbox_as_the_filter_expects(tmp_path, code, test, reason):
    with CodeExecution(Sandbox.open(), tmp_path / "e.sqlite", timeout_s=1.0, num_workers=1) as trials:
        ending = asyncio.run(trials(code, test))
    assert isinstance(ending, ExecutionResult) and ending.reason == reason


def test_a_damaged_file_of_endings_is_named(tmp_path):
    (tmp_path / "e.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=r"e\.sqlite cannot be used .* move it away"):
        run_all(Counting(), tmp_path, "1")


def test_a_full_disk_stops_the_run_which_can_go_on_later(tmp_path):
    async def ended(trials):
        trials._results.execute("PRAGMA max_page_count = 2")
        return await asyncio.gather(*(trials(f"{i}" * 9000, "") for i in range(200)))

    with pytest.raises(StoppedEarlyError, match=r"e\.sqlite .* free disk space"):  # noqa: SIM117
        with CodeExecution(Counting(), tmp_path / "e.sqlite", timeout_s=1.0, num_workers=1) as trials:
            asyncio.run(ended(trials))
    with contextlib.closing(sqlite3.connect(tmp_path / "e.sqlite")) as endings:
        assert endings.execute("SELECT count(*) FROM endings").fetchone()[0] > 0
