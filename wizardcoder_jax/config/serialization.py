"""Conversion of settings to JSON and back. This is how they are stored with checkpoints, samples and results."""

import dataclasses
import types
import typing
from typing import Any


def to_json(config: Any) -> dict[str, Any]:
    """Return the settings as a dict that JSON can store, with a nested dict for each nested dataclass."""
    return dataclasses.asdict(config)


def from_json(kind: Any, value: Any) -> Any:
    """Rebuild settings from the output of `to_json`, possibly after a round trip through a JSON file.

    Args:
        kind: type to build: a settings dataclass, or the annotation of one of its fields.
        value: what `to_json` returned for it.

    Raises:
        ValueError: a value is out of range.
        TypeError, AttributeError, KeyError: `value` does not have the fields of `kind`.
    """
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: from_json(hints[name], entry) for name, entry in value.items()})  # type: ignore[operator]
    if typing.get_origin(kind) is tuple:
        return tuple(from_json(typing.get_args(kind)[0], entry) for entry in value)
    if typing.get_origin(kind) is types.UnionType and value is not None:
        return from_json(next(option for option in typing.get_args(kind) if option is not type(None)), value)
    return value
