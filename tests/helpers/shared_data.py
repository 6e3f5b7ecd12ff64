"""Published problem files, which are not part of the repository: a test that needs a missing one is skipped."""

import os
from pathlib import Path

import pytest

DATA_DIR = Path(os.environ.get("WIZARDCODER_DATA", Path(__file__).parents[3] / "shared" / "data"))


def shared(name):
    """Return the path of a shared file, or skip the test if it is missing."""
    path = DATA_DIR / name
    if not path.is_file():
        pytest.skip(f"needs the shared data (WIZARDCODER_DATA): {name}")
    return str(path)
