"""Attacks and honest programs in both tiers, as root (if we are root) and as another user."""

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

from tests.helpers.attacks import PERSISTENCE, REPRESENTATIVE, attacks
from tests.helpers.honest_programs import CALLED, WHOLE
from tests.helpers.sandbox_runs import TIERS

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "tests" / "helpers" / "attack_runs.py"
NOBODY = {"bubblewrap": 65534, "landlock": 65533}  # different users: each run checks what its user left behind
USERS = ("root", "nobody") if os.geteuid() == 0 else ("current user",)


def is_readable_by_all(path):
    return all(parent.stat().st_mode & 0o1 for parent in Path(path).resolve().parents)


@functools.cache
def public_interpreter():
    """Return a Python that any user can start, None if there is none."""
    for path in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if (
            path
            and is_readable_by_all(path)
            and subprocess.run([path, "-c", "import sys; assert sys.version_info >= (3, 11)"]).returncode == 0
        ):
            return path
    return None


@functools.cache
def public_script():
    """Return the path of the script, copied with its imports if other users cannot read the repository."""
    if is_readable_by_all(SCRIPT):
        return SCRIPT
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    atexit.register(shutil.rmtree, folder)
    folder.chmod(0o755)
    for name in ("tests/helpers", "wizardcoder_jax"):
        shutil.copytree(REPOSITORY / name, folder / name)
    return folder / SCRIPT.relative_to(REPOSITORY)


def run_script(tier, user, *arguments):
    command, env = [sys.executable, str(SCRIPT), tier, *arguments], dict(os.environ)
    if user == "nobody":
        if public_interpreter() is None or shutil.which("setpriv") is None:
            pytest.skip("no Python 3.11 that another user can start, or no setpriv; apt-get install python3 util-linux")
        command[:2] = [str(public_interpreter()), str(public_script())]
        command = ["setpriv", f"--reuid={NOBODY[tier]}", f"--regid={NOBODY[tier]}", "--clear-groups", *command]
        env = {"PATH": env.get("PATH", "/usr/bin:/bin"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=1800)
    if "programs cannot be isolated" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_attacks(outcome, num_attacks):
    verdicts = outcome.pop("verdicts")
    assert len(verdicts) == num_attacks
    assert {name: verdict for name, verdict in verdicts.items() if verdict[0] in ("passed", "sandbox")} == {}
    assert outcome == {"effects": [], "left_behind": [], "folders": [], "alive": True}


def check_honest_programs(verdicts):
    assert {name: verdict for name, verdict in verdicts.items() if verdict[0] != "passed"} == {}
    assert {name for name, verdict in verdicts.items() if verdict[2]} == set(WHOLE)


def test_the_suites_have_their_claimed_sizes_and_a_representative_of_each_kind():
    assert len(attacks()) + len(PERSISTENCE) >= 230
    assert len(CALLED) + len(WHOLE) >= 60
    assert set(REPRESENTATIVE) <= set(attacks())
    assert {name.split(":")[0] for name in REPRESENTATIVE} == {name.split(":")[0] for name in attacks()}


@pytest.mark.parametrize("tier", TIERS)
def test_no_representative_attack_passes_escapes_or_leaves_anything_behind(tier):
    check_attacks(run_script(tier, USERS[0], "attacks", "representative"), len(REPRESENTATIVE) + len(PERSISTENCE))


@pytest.mark.parametrize("tier", TIERS)
def test_every_honest_program_passes(tier):
    check_honest_programs(run_script(tier, USERS[0], "honest")["verdicts"])


@pytest.mark.slow
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("tier", TIERS)
def test_no_attack_passes_escapes_or_leaves_anything_behind(tier, user):
    check_attacks(run_script(tier, user, "attacks"), len(attacks()) + len(PERSISTENCE))


@pytest.mark.slow
@pytest.mark.skipif(len(USERS) == 1, reason="only root can become another user")
@pytest.mark.parametrize("tier", TIERS)
def test_every_honest_program_passes_as_another_user(tier):
    check_honest_programs(run_script(tier, "nobody", "honest")["verdicts"])
