"""Typed access to the fields of records read from a file."""

from collections.abc import Mapping
from typing import Any, TypeVar

from wizardcoder_jax.core.errors import InputError

Value = TypeVar("Value", str, int)


def required(place: str, record: Mapping[str, Any], key: str, kind: type[Value]) -> Value:
    """The value of `key` in a record read at `place` ("FILE:LINE").

    Raises:
        InputError: the key is missing or its value is not a `kind`.
    """
    if key not in record:
        raise InputError(f'{place}: no "{key}"; the record has {", ".join(record) or "no keys"}')
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f'{place}: "{key}" must be a {kind.__name__}, found {type(value).__name__}')
    return value


def optional_text(place: str, record: Mapping[str, Any], key: str) -> str | None:
    """The text of `key`, or None where the key is absent or null.

    Raises:
        InputError: the value is something other than text.
    """
    return None if record.get(key) is None else required(place, record, key, str)
