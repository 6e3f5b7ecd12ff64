"""Short problems of our own in HumanEval format: `mini` for reporting, `mini-dev` for tuning; never train on either."""

from pathlib import Path


def locate_mini() -> tuple[str, str]:
    """Return the path of the problem file of `mini` and a label that names its source."""
    return _packaged_file("mini.jsonl")


def locate_mini_dev() -> tuple[str, str]:
    """Return the path of the problem file of `mini-dev` and a label that names its source."""
    return _packaged_file("mini-dev.jsonl")


def _packaged_file(name: str) -> tuple[str, str]:
    return str(Path(__file__).with_name("problems") / name), name
