"""Every attack and every honest program, in both tiers, as root (where we are) and as another user."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.attacks import PERSISTENCE, attacks
from tests.helpers.honest_programs import CALLED, WHOLE

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "tests" / "helpers" / "attack_runs.py"
TIERS = ("bubblewrap", "landlock")
NOBODY = {"bubblewrap": 65534, "landlock": 65533}  # not the same: each run looks for what its user has left
USERS = ("root", "nobody") if os.geteuid() == 0 else ("present user",)


def readable_by_all(path):
    return all(parent.stat().st_mode & 0o1 for parent in Path(path).resolve().parents)


@functools.cache
def interpreter():
    """A Python that any user can start."""
    for path in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if (
            path
            and readable_by_all(path)
            and subprocess.run([path, "-c", "import sys; assert sys.version_info >= (3, 11)"]).returncode == 0
        ):
            return path
    return None


@functools.cache
def visible_script():
    """The script where any user can read it, and what it needs beside it."""
    if readable_by_all(SCRIPT):
        return SCRIPT
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    atexit.register(shutil.rmtree, folder)
    folder.chmod(0o755)
    for name in ("tests/helpers", "wizardcoder_jax"):
        shutil.copytree(REPOSITORY / name, folder / name)
    return folder / SCRIPT.relative_to(REPOSITORY)


@functools.cache
def outcome(tier, user, what):
    command, env = [sys.executable, str(SCRIPT), tier, what], dict(os.environ)
    if user == "nobody":
        if interpreter() is None or shutil.which("setpriv") is None:
            pytest.skip("another user can reach no Python 3.11, or there is no setpriv; apt-get install python3 util-linux")
        command[:2] = [str(interpreter()), str(visible_script())]
        command = ["setpriv", f"--reuid={NOBODY[tier]}", f"--regid={NOBODY[tier]}", "--clear-groups", *command]
        env = {"PATH": env.get("PATH", "/usr/bin:/bin"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=900)
    if "programs cannot be isolated" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_suites_are_as_large_as_they_claim():
    assert len(attacks()) + len(PERSISTENCE) >= 230
    assert len(CALLED) + len(WHOLE) >= 60


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("tier", TIERS)
def test_no_attack_passes_escapes_or_leaves_anything(tier, user):
    found = outcome(tier, user, "attacks")
    verdicts = found.pop("verdicts")
    assert len(verdicts) == len(attacks()) + len(PERSISTENCE)
    assert {name: verdict for name, verdict in verdicts.items() if verdict[0] in ("passed", "sandbox")} == {}
    assert found == {"effects": [], "left_behind": [], "folders": [], "alive": True}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("tier", TIERS)
def test_every_honest_program_passes(tier, user):
    verdicts = outcome(tier, user, "honest")["verdicts"]
    assert {name: verdict for name, verdict in verdicts.items() if verdict[0] != "passed"} == {}
    assert {name for name, verdict in verdicts.items() if verdict[2]} == set(WHOLE)
