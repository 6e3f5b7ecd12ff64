"""Presets, which are files of settings that `--config` loads."""

import dataclasses
import importlib.util
import json
import os
from typing import Any, TypeVar

from wizardcoder_jax.config.serialization import from_json
from wizardcoder_jax.core.errors import InputError

Config = TypeVar("Config")


def load_preset(path: str, config_type: type[Config]) -> Config:
    """Load the settings of one command from a preset file.

    Args:
        path: a .py file that defines `config`, or the config.json that a command wrote.
        config_type: dataclass of the command's settings. A preset of `reproduce` also serves the commands that it runs, and
            a preset of `train` also serves `plan`.

    Raises:
        InputError: the file does not exist, cannot be run or read, or has no settings for this command.
    """
    if not os.path.isfile(path):
        raise InputError(f"preset {path} does not exist; the presets of this repository are in configs/")
    if path.endswith(".json"):
        return _load_json(path, config_type)
    preset = _run_preset(path)
    config = _select_settings(preset, config_type)
    if config is None:
        raise InputError(
            f"{path}: this command needs `config` to be a {config_type.__name__}, found {type(preset).__name__}; "
            "choose a preset of this command"
        )
    return config


def _run_preset(path: str) -> Any:
    """Run a .py preset and return its `config`, or None if it defines none."""
    spec = importlib.util.spec_from_file_location("wizardcoder_jax_preset", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a preset; give a .py file or a config.json that a command wrote")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a preset is the user's own program, so any exception is possible
        raise InputError(f"{path}: {error}") from error
    return getattr(module, "config", None)


def _select_settings(preset: Any, config_type: type[Config]) -> Config | None:
    """Return the settings of type `config_type` that a preset provides, or None."""
    if not dataclasses.is_dataclass(preset):
        return None
    candidates: list[Any] = [preset, *(getattr(preset, field.name) for field in dataclasses.fields(preset))]
    found = next((candidate for candidate in candidates if issubclass(config_type, type(candidate))), candidates[0])
    kind: Any = type(found)
    if kind is not config_type and issubclass(config_type, kind):  # e.g. a preset of train for plan, which has more fields
        found = config_type(**{field.name: getattr(found, field.name) for field in dataclasses.fields(found)})
    return found if isinstance(found, config_type) else None


def _load_json(path: str, config_type: type[Config]) -> Config:
    try:
        with open(path, encoding="utf-8") as file:
            return from_json(config_type, json.load(file))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} has no valid {config_type.__name__}: {error}") from error
