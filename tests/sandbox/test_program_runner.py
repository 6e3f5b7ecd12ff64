import threading

import pytest

from tests.helpers.sandbox_runs import open_or_skip
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.sandbox.program_runner import ProgramRunner
from wizardcoder_jax.sandbox.verdict import Verdict


class FakeSandbox:
    """Returns scripted reasons for each candidate, the last one forever, and records which programs run at once."""

    def __init__(self, **reasons):
        self.reasons, self.runs, self.is_stopped = reasons, [], False
        self._running, self._lock = set(), threading.Lock()
        self.meeting = threading.Barrier(2)

    def check_tools(self, programs):
        pass

    def run(self, program, timeout_s):
        name = program.candidate
        with self._lock:
            self._running.add(name)
            self.runs.append((name, frozenset(self._running)))
            reasons = self.reasons.get(name, ["passed"])
            reason = reasons.pop(0) if len(reasons) > 1 else reasons[0]
        if name.startswith("meet"):
            self.meeting.wait(60)
        with self._lock:
            self._running.remove(name)
        return Verdict(reason=reason, detail="", seconds=0.0)

    def stop(self):
        self.is_stopped = True


def programs(*names):
    return {name: Program(candidate=name, test="") for name in names}


def run(sandbox, *names, num_workers=2, **options):
    with ProgramRunner(sandbox, timeout_s=1.0, num_workers=num_workers, **options) as runner:
        return {name: verdict.reason for name, verdict in runner.run_all(programs(*names))}


@pytest.mark.quick
def test_every_verdict_is_returned_under_the_key_of_its_program():
    names = [str(i) for i in range(50)]
    sandbox = FakeSandbox(**{name: [f"exception:E{name}"] for name in names})
    assert run(sandbox, *names) == {name: f"exception:E{name}" for name in names}
    assert sandbox.is_stopped


@pytest.mark.quick
def test_at_most_num_workers_programs_run_at_once():
    sandbox = FakeSandbox()
    run(sandbox, "meet 1", "meet 2", *map(str, range(50)))
    assert max(len(running) for _, running in sandbox.runs) == 2


@pytest.mark.quick
@pytest.mark.parametrize("reason", ["timeout", "sandbox"])
def test_a_timeout_or_sandbox_failure_among_others_is_confirmed_alone_after_them(reason):
    sandbox = FakeSandbox(slow=[reason, "passed"], late=[reason, reason])
    assert run(sandbox, "slow", "a", "late", "b") == {"slow": "passed", "late": reason, "a": "passed", "b": "passed"}
    assert len(sandbox.runs) == 6
    assert {name for name, _ in sandbox.runs[-2:]} == {"slow", "late"}
    assert all(running == {name} for name, running in sandbox.runs[-2:])


@pytest.mark.quick
def test_with_one_worker_every_verdict_counts():
    sandbox = FakeSandbox(slow=["timeout"])
    assert run(sandbox, "slow", "a", num_workers=1) == {"slow": "timeout", "a": "passed"}
    assert len(sandbox.runs) == 2


@pytest.mark.quick
def test_a_timeout_exception_of_the_test_counts_as_a_timeout():
    sandbox = FakeSandbox(slow=["exception:CallTimeout", "exception:CallTimeout"], odd=["exception:Odd"])
    reasons = run(sandbox, "slow", "odd", timeout_exceptions=["CallTimeout"])
    assert reasons == {"slow": "timeout", "odd": "exception:Odd"}
    assert [name for name, _ in sandbox.runs].count("slow") == 2


@pytest.mark.quick
def test_programs_submitted_one_by_one_are_confirmed_too():
    sandbox = FakeSandbox(slow=["timeout", "passed"])
    with ProgramRunner(sandbox, timeout_s=1.0, num_workers=2) as runner:
        futures = [runner.submit(program) for program in programs("slow", "a", "b").values()]
        assert [future.result(timeout=60).reason for future in futures] == ["passed"] * 3
    assert [name for name, _ in sandbox.runs].count("slow") == 2


@pytest.mark.quick
def test_an_error_while_running_is_raised_to_the_caller():
    class Broken(FakeSandbox):
        def run(self, program, timeout_s):
            raise InputError("no toolchain")

    with pytest.raises(InputError, match="no toolchain"):
        run(Broken(), "a", "b")


def test_stopping_early_leaves_no_process_running():
    sandbox = open_or_skip()
    programs = {i: Program(candidate="import time\ntime.sleep(600)" if i else "", test="") for i in range(3)}
    verdicts = ProgramRunner(sandbox, timeout_s=60.0, num_workers=2).run_all(programs)
    assert next(verdicts)[0] == 0
    verdicts.close()
    assert not sandbox._running and not sandbox._idle


def test_a_missing_toolchain_is_found_before_any_program_runs(sandbox, monkeypatch):
    monkeypatch.setattr(sandbox, "run", lambda *args: pytest.fail("ran a program"))
    programs = {0: Program(candidate="", test=""), 1: Program(candidate="", test="", language="cobol")}
    with pytest.raises(InputError, match="unknown language 'cobol'"):
        next(ProgramRunner(sandbox, timeout_s=1.0, num_workers=1).run_all(programs))
