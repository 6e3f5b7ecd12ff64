import logging

import pytest

from wizardcoder_jax.core.logging_setup import configure_logging
from wizardcoder_jax.core.progress import Progress

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def restored_level():
    yield
    configure_logging(logging.INFO)


def do_work():
    with Progress("train", 3, "step", done=1) as progress:
        progress.update(loss="2.0")
        progress.log("loss is falling")
        progress.update(loss="1.5")


def test_progress_is_plain_lines_on_stderr_without_a_terminal(capsys):
    configure_logging(logging.INFO)
    do_work()
    captured = capsys.readouterr()
    assert captured.out == "" and "\r" not in captured.err
    assert captured.err == "train: loss is falling\ntrain: 3/3 steps, 0 s, 0 s left, loss=1.5\n"


def test_quiet_hides_progress(capsys):
    configure_logging(logging.WARNING)
    do_work()
    assert capsys.readouterr().err == ""


def test_bytes_are_shown_as_gigabytes(capsys):
    configure_logging(logging.INFO)
    with Progress("load weights", 3_000_000_000, "B") as progress:
        progress.update(3_000_000_000)
    assert capsys.readouterr().err.startswith("load weights: 3.00/3.00 GB, ")
