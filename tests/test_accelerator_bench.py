"""scripts/bench/accelerator.py with tiny models on the CPU: every case runs, and a run that is stopped leaves valid files."""

import importlib
import json
import random
import subprocess
import sys
import time

import pytest

from tests.helpers.processes import REPOSITORY, environment, run_python
from wizardcoder_jax.models.families.registry import FAMILIES

SCRIPT = REPOSITORY / "scripts/bench/accelerator.py"


def start(folder, *flags):
    command = [sys.executable, str(SCRIPT), "--smoke", "--output-dir", str(folder), *map(str, flags)]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)


def read_results(folder):
    """Return (kind, status) of every entry of results.json."""
    return [(entry["case"]["kind"], entry["status"]) for entry in json.loads((folder / "results.json").read_text())["results"]]


@pytest.mark.slow
def test_every_case_has_results(tmp_path):
    assert start(tmp_path).wait(timeout=600) == 0
    found = read_results(tmp_path)
    kinds = ["device", "parity", "attention", "train", "decode", "torch_train", "torch_decode"]
    assert [kind for kind, status in found if status == "done"] == kinds, found
    report = json.loads((tmp_path / "results.json").read_text())
    entries = [entry for entry in report["results"] if entry["status"] == "result"]
    for entry in entries:
        if entry["case"]["kind"] == "parity":
            assert entry["loss_error"] < 1e-6 and entry["gradient_error"] < 1e-6 and entry["equal_tokens"] == "4 of 4"
        elif "tokens_per_s" in entry:
            assert entry["tokens_per_s"] == pytest.approx(entry["batch"] * 128 / entry["step_s"])
        elif "decode_step_ms" in entry:
            assert entry["decode_tokens_per_s"] == pytest.approx(1e3 * entry["batch"] / entry["decode_step_ms"])
    assert {entry["family"] for entry in entries if entry["case"]["kind"] == "parity"} == set(FAMILIES)
    page = (tmp_path / "results.md").read_text()
    assert "## parity" in page and "| tiny |" in page and "Not finished" not in page


@pytest.mark.slow
def test_a_run_ends_when_its_budget_is_spent(tmp_path):
    assert start(tmp_path, "--budget-s", 9).wait(timeout=40) == 0
    assert read_results(tmp_path)[-1] == ("torch_decode", "no time left")
    assert "## Not finished" in (tmp_path / "results.md").read_text()


@pytest.fixture
def accelerator(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts/bench"))
    return importlib.import_module("accelerator")


def test_a_case_that_exceeds_the_budget_is_stopped(accelerator, tmp_path):
    case, deadline = {"kind": "parity", "num_tokens": 64}, time.monotonic() + accelerator.MIN_CASE_S + 0.5
    [*_, last] = accelerator.results_of(case, deadline, tmp_path / "log.txt", environment())
    assert last["status"] == "stopped, the budget is spent"
    assert last["seconds"] < accelerator.MIN_CASE_S + 20


def test_the_error_of_a_failed_case_is_reported(accelerator, tmp_path):
    case = {"kind": "train", "model": "tiny", "length": 100, "attention": "splash", "remat": "full", "batches": [1]}
    [last] = accelerator.results_of(case, time.monotonic() + 100, tmp_path / "log.txt", environment())
    assert last["status"] == "failed" and "splash" in last["error"]


@pytest.mark.slow
def test_a_run_killed_at_any_moment_leaves_valid_json(tmp_path):
    for repeat in range(4):
        folder = tmp_path / str(repeat)
        run = start(folder)
        time.sleep(random.Random(repeat).uniform(2, 25))
        run.kill()
        run.wait()
        assert all(status for _, status in read_results(folder))
        assert (folder / "results.md").read_text().startswith("# Accelerator report")


# Runs cases where only a plain jax installation and the listed requirements can be imported.
ONLY_LISTED_PACKAGES = """
import importlib.metadata, sys
sys.path.insert(0, "scripts/bench")
import accelerator
listed = [line.partition("==")[0] for line in accelerator.list_requirements()]
code = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("wizardcoder_jax", "on_device")}
for name in code:
    del sys.modules[name]
allowed = accelerator._with_dependencies([*accelerator.ASSUMED_INSTALLED, *listed]) | {"wizardcoder-jax"}
owners = importlib.metadata.packages_distributions()
class Blocker:
    def find_spec(self, name, path=None, target=None):
        found = {owner.lower().replace("_", "-") for owner in owners.get(name.partition(".")[0], ())}
        if found and not found & allowed:
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
from on_device import ours
for results in (
    ours.device(16),
    ours.parity(2),
    ours.train("tiny", 128, "dot", "full", [1]),
    ours.decode("tiny", True, 16, 40, [1]),
):
    assert list(results)
assert not {"seqio", "tensorflow", "tyro"} & sys.modules.keys()
"""


@pytest.mark.slow
def test_the_cases_need_nothing_beyond_the_listed_requirements():
    done = run_python("-c", ONLY_LISTED_PACKAGES)
    assert done.returncode == 0, done.stderr[-3000:]


def test_requirements_are_what_a_plain_jax_installation_lacks():
    done = run_python(SCRIPT, "--requirements")
    assert done.returncode == 0, done.stderr
    names = {line.partition("==")[0] for line in done.stdout.splitlines()}
    assert not names & {"jax", "jaxlib", "flax", "numpy", "torch", "transformers", "seqio", "tensorflow", "pytest"}
    assert all("==" in line for line in done.stdout.splitlines())
