"""tpu/launch.sh, with a stand-in for gcloud that records its arguments."""

import os
import shlex
import subprocess
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

SCRIPT = Path(__file__).parents[1] / "tpu" / "launch.sh"

FAKE_GCLOUD = """#!/usr/bin/env bash
printf '%q ' "$@" >> "$FAKE_DIR/calls"
echo >> "$FAKE_DIR/calls"
case "$*" in
  *describe*) head -n 1 "$FAKE_DIR/states"; sed -i 1d "$FAKE_DIR/states" ;;
  *" scp "*) cp "$5" "$FAKE_DIR/archive.tar.gz" ;;
  *" ssh "*) exit "${FAKE_SSH_STATUS:-0}" ;;
esac
"""


@pytest.fixture
def launch(tmp_path):
    """Return a function that runs the script and returns the process and the arguments of each gcloud call."""
    fake = tmp_path / "bin" / "gcloud"
    fake.parent.mkdir()
    fake.write_text(FAKE_GCLOUD)
    fake.chmod(0o755)

    def run(*args, states=("ACTIVE",), **settings):
        (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
        (tmp_path / "calls").write_text("")
        own = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")}
        env = {**own, "PATH": f"{fake.parent}:{own['PATH']}", "FAKE_DIR": str(tmp_path), "TPU_POLL_S": "0", **settings}
        done = subprocess.run([SCRIPT, *args], capture_output=True, text=True, env=env, timeout=60)
        return done, [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]

    return run


def verbs(calls):
    return [call[3] for call in calls]


def test_create_waits_until_the_slice_is_active(launch):
    done, calls = launch("create", states=("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"), TPU_NAME="n", TPU_ZONE="z")
    assert done.returncode == 0
    assert verbs(calls) == ["create", "describe", "describe", "describe"]
    assert {"n", "--node-id=n", "--zone=z", "--accelerator-type=v5litepod-32"} <= set(calls[0])
    assert "--spot" not in calls[0] and "--spot" in launch("create", TPU_SPOT="1")[1][0]


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_waiting_ends_when_the_slice_fails(launch, state):
    done, calls = launch("up", "true", states=("PROVISIONING", state))
    assert done.returncode == 1 and "delete" in done.stderr
    assert "ssh" not in verbs(calls)


def test_setup_copies_the_committed_files_to_every_worker(launch, tmp_path):
    done, calls = launch("setup")
    assert done.returncode == 0 and verbs(calls) == ["scp", "ssh"]
    assert all("--worker=all" in call for call in calls)
    assert calls[1][-1].endswith("make setup EXTRA=tpu")
    with tarfile.open(tmp_path / "archive.tar.gz") as archive:
        assert {"pyproject.toml", "wizardcoder_jax/train.py"} <= set(archive.getnames())


def test_the_command_reaches_the_workers_with_its_arguments_intact(launch):
    done, calls = launch("run", "echo", "two words", "$HOME", "a'b")
    assert done.returncode == 0
    remote = calls[0][-1].removeprefix("--command=").split(" && ")[-1]
    output = subprocess.run(["bash", "-c", remote], capture_output=True, text=True, check=True).stdout
    assert output == "two words $HOME a'b\n"


def test_the_launcher_exits_with_the_status_of_the_command(launch):
    assert launch("run", "false", FAKE_SSH_STATUS="75")[0].returncode == 75


def test_up_creates_sets_up_and_runs_and_delete_deletes(launch):
    assert verbs(launch("up", "true")[1]) == ["create", "describe", "scp", "ssh", "ssh"]
    calls = launch("delete")[1]
    assert verbs(calls) == ["delete"] and {"--force", "--quiet"} <= set(calls[0])


def test_a_dry_run_prints_the_commands_without_running_them(launch):
    done, calls = launch("--dry-run", "up", "python", "-m", "x")
    assert done.returncode == 0 and calls == []
    lines = done.stdout.splitlines()
    assert [shlex.split(line)[0] for line in lines] == ["gcloud"] * 5
    assert verbs([shlex.split(line)[1:] for line in lines]) == ["create", "describe", "scp", "ssh", "ssh"]


@pytest.mark.parametrize("args", [(), ("start",), ("run",), ("up",)])
def test_bad_usage_is_refused_before_gcloud_is_called(launch, args):
    done, calls = launch(*args)
    assert done.returncode == 2 and done.stderr and calls == []
