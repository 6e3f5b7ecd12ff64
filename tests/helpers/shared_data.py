"""Benchmarks' own problem files, which are no part of the project: tests that need one are skipped where it is not there."""

import os
from pathlib import Path

import pytest

DATA_DIR = Path(os.environ.get("WIZARDCODER_DATA", Path(__file__).parents[3] / "shared" / "data"))


def shared(name):
    """The path of a file of the shared data."""
    path = DATA_DIR / name
    if not path.is_file():
        pytest.skip(f"needs the shared data (WIZARDCODER_DATA): {name}")
    return str(path)
