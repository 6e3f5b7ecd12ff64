import shutil

import pytest

from tests.helpers.sandbox_runs import run_together
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.sandbox import bubblewrap, tiers
from wizardcoder_jax.sandbox import sandbox as sandbox_module
from wizardcoder_jax.sandbox.limits import Limits
from wizardcoder_jax.sandbox.sandbox import Sandbox


def reason_of(sandbox, candidate, **options):
    return run_together(sandbox, candidate, **options).reason


def hide_landlock(monkeypatch):
    monkeypatch.setattr(sandbox_module, "missing_for_landlock", lambda: "this kernel has no Landlock")


def test_landlock_is_used_if_bubblewrap_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    if tiers.missing_for_landlock():
        pytest.skip("this kernel has no Landlock")
    opened = Sandbox.open()
    assert opened.tier == "landlock"
    opened.stop()


def test_without_any_tier_opening_fails_and_names_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    hide_landlock(monkeypatch)
    with pytest.raises(InputError, match=r"bubblewrap is missing; this kernel has no Landlock; .*apt-get install bubblewrap"):
        Sandbox.open()


def test_a_bubblewrap_that_does_not_work_is_not_used(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: str(broken))
    hide_landlock(monkeypatch)
    with pytest.raises(InputError, match=r"No permissions to create new namespace.*apt-get install bubblewrap"):
        Sandbox.open()


def test_the_unsafe_tier_is_recorded_and_keeps_the_limits():
    unsafe = Sandbox.open(unsafe=True, limits=Limits(memory_bytes=1 << 30))
    assert unsafe.tier == "none"
    assert reason_of(unsafe, "assert 1 + 1 == 2") == "passed"
    assert reason_of(unsafe, "while True: pass", timeout_s=0.2) == "timeout"
    assert reason_of(unsafe, "x = bytearray(2 << 30)") == "memory"
    unsafe.stop()


def test_an_unknown_tier_is_an_error(monkeypatch):
    monkeypatch.setenv("WIZARDCODER_SANDBOX", "docker")
    with pytest.raises(InputError, match="unknown tier WIZARDCODER_SANDBOX=docker; choose bubblewrap or landlock"):
        Sandbox.open()
