"""Our own short problems, in HumanEval form: `mini` for reporting, `mini-dev` for tuning; neither is ever trained on."""

from pathlib import Path


def locate_mini() -> tuple[str, str]:
    """(path, label) of the reporting half."""
    return _shipped("mini.jsonl")


def locate_mini_dev() -> tuple[str, str]:
    """(path, label) of the tuning half."""
    return _shipped("mini-dev.jsonl")


def _shipped(name: str) -> tuple[str, str]:
    return str(Path(__file__).with_name("problems") / name), name
