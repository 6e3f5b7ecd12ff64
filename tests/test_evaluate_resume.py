import signal
import subprocess
import time

import pytest

from tests.helpers.evaluate_files import (
    REPOSITORY,
    arguments,
    command,
    results_of,
    skip_without_sandbox,
    write_files,
    write_lines,
)
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evaluate import main
from wizardcoder_jax.sandbox.program_runner import ProgramRunner


@pytest.fixture(scope="module")
def sandboxed():
    skip_without_sandbox()


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path)


@pytest.fixture
def runs(monkeypatch):
    """Record the programs that run; `runs.stop_after` ends a run early, as a crash would."""

    class Runs(list):
        stop_after = None

    seen = Runs()
    run_all = ProgramRunner.run_all

    def watched(self, programs):
        for key, verdict in run_all(self, programs):
            if len(seen) == seen.stop_after:
                raise RuntimeError("crash")
            seen.append(programs[key].candidate)
            yield key, verdict

    monkeypatch.setattr(ProgramRunner, "run_all", watched)
    return seen


def crash_after(count, runs, folder):
    runs.clear()
    runs.stop_after = count
    with pytest.raises(RuntimeError, match="crash"):
        main(arguments(folder, "--protocol", "stored", "--overwrite"))
    runs.stop_after = None


def test_finished_verdicts_are_not_run_again(sandboxed, files, runs):
    crash_after(2, runs, files)
    before = list(runs)
    main(arguments(files, "--protocol", "stored"))
    assert len(before) == 2 and len(runs) == len(set(runs)) == 6
    assert results_of(files)["pass_at_k"]["1"] == 0.5


def test_a_changed_sample_is_run_again(sandboxed, files, runs):
    crash_after(5, runs, files)
    text = (files / "samples.jsonl").read_text()
    (files / "samples.jsonl").write_text(text.replace("    return 1", "    return 3").replace("return 2", "return 1"))
    runs.clear()
    main(arguments(files, "--protocol", "stored"))
    assert {program.split("\n", 1)[1].strip() for program in runs} >= {"return 3"}
    assert len([program for program in runs if program.endswith("    return 3")]) == 2
    passed = {task_id: [entry["passed"] for entry in own] for task_id, own in results_of(files)["problems"].items()}
    assert passed == {"T/0": [False, True], "T/1": [False, True], "T/2": [False, False]}


def test_overwrite_runs_every_program_again(sandboxed, files, runs):
    crash_after(2, runs, files)
    runs.clear()
    main(arguments(files, "--protocol", "stored", "--overwrite"))
    assert len(runs) == 6


def test_equal_programs_run_once_and_each_sample_counts(sandboxed, files, runs):
    same = [{"task_id": "T/0", "completion": "    return 1"}] * 5
    write_lines(files / "samples.jsonl", same)
    main(arguments(files, "--protocol", "stored", "--limit", "1", "--k", "5"))
    assert len(runs) == 1
    assert len(results_of(files)["problems"]["T/0"]) == 5


def test_an_output_that_cannot_be_written_is_reported_before_any_program_runs(sandboxed, files, monkeypatch):
    monkeypatch.setattr(ProgramRunner, "run_all", lambda *args: pytest.fail("ran programs"))
    (files / "plain").write_text("")
    for output in (files, files / "plain" / "results.json"):
        with pytest.raises(InputError, match=str(output.name if output == files else "plain")):
            main(arguments(files, "--protocol", "stored", "--output", str(output)))


def test_an_interrupt_prints_one_line_and_keeps_the_finished_verdicts(sandboxed, files):
    sleepy = [
        {"task_id": f"T/{i}", "completion": "    return 1" if i == 0 else "    __import__('time').sleep(600)"} for i in range(3)
    ]
    write_lines(files / "samples.jsonl", sleepy)
    args = command(*arguments(files, "--protocol", "stored", "--timeout-s", "100"))
    process = subprocess.Popen(args, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    journal = files / ".results.json.journal"
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (journal.exists() and '"passed"' in journal.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 75
    assert said.strip() == "stopped: interrupted; the same command resumes"
    assert '"passed"' in journal.read_text() and not (files / "results.json").exists()
