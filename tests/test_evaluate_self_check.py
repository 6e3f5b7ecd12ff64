import subprocess

import pytest

from tests.helpers.evaluate_files import (
    REPOSITORY,
    arguments,
    command,
    problem,
    skip_without_sandbox,
    write_files,
    write_lines,
)
from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.evaluate import main


@pytest.fixture(scope="module")
def sandboxed():
    skip_without_sandbox()


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path)


def test_the_reference_solutions_of_mini_pass_the_self_check(sandboxed, capsys):
    for name in ("mini", "mini-dev"):
        main(["--benchmark", name, "--self-check"])
        num = len(load_benchmark(name).problems)
        assert f"{num}/{num} reference solutions pass" in capsys.readouterr().err


def test_the_reference_solutions_of_humaneval_pass_the_self_check(sandboxed, capsys):
    main(["--benchmark", "humaneval", "--self-check", "--timeout-s", "10"])
    assert "164/164 reference solutions pass" in capsys.readouterr().err


def test_the_self_check_names_failing_reference_solutions_and_exits_with_status_1(sandboxed, files):
    write_lines(files / "problems.jsonl", [problem(0), problem(1, test="assert candidate() == 2")])
    done = subprocess.run(command(*arguments(files, "--self-check")), capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "self-check failed: T/1 (assertion)"
    assert not (files / "results.json").exists()
