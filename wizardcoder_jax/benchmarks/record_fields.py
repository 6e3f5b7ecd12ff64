"""Typed access to the fields of records that were read from a JSON or parquet file."""

from collections.abc import Mapping
from typing import Any, TypeVar

from wizardcoder_jax.core.errors import InputError

Value = TypeVar("Value", str, int)


def require_field(location: str, record: Mapping[str, Any], key: str, kind: type[Value]) -> Value:
    """Return the value of `key` in a record read from `location` ("FILE:LINE").

    Raises:
        InputError: the key is missing or its value has another type.
    """
    if key not in record:
        raise InputError(f'{location}: missing field "{key}"; the record has {", ".join(record) or "no keys"}')
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f'{location}: "{key}" must be of type {kind.__name__}, found {type(value).__name__}')
    return value


def get_optional_string(location: str, record: Mapping[str, Any], key: str) -> str | None:
    """Return the string of `key`, or None if the key is missing or null.

    Raises:
        InputError: the value is not a string.
    """
    return None if record.get(key) is None else require_field(location, record, key, str)
