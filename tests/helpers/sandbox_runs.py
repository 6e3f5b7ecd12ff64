"""Runs programs in a sandbox tier; tests are skipped if the tier does not work on this host."""

import pytest

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.sandbox.sandbox import Sandbox

TIERS = ("bubblewrap", "landlock")
TIMEOUT_S = 10.0  # CPU seconds; honest programs in the tests use far less, even on a loaded machine


def open_or_skip(tier=None, **settings):
    """Open a sandbox, or skip the test if the tier does not work. Never run without isolation: tests run hostile programs."""
    try:
        return Sandbox.open(tier=tier, **settings)
    except InputError as error:
        pytest.skip(str(error))


def run_separately(sandbox, candidate, test, timeout_s=TIMEOUT_S, **fields):
    """Return the verdict with candidate and test in two processes."""
    return sandbox.run(Program(candidate=candidate, test=test, entry_point="f", **fields), timeout_s)


def run_together(sandbox, candidate, test="", timeout_s=TIMEOUT_S):
    """Return the verdict with candidate and test in one interpreter."""
    return sandbox.run(Program(candidate=candidate, test=test), timeout_s)
