"""The codec for values that tester and candidate exchange.

Only these types are sent by value: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset,
range, the containers of `collections`, Decimal, Fraction, the types of `datetime`, numpy's arrays and numbers, and builtin
types by name. An instance of a subclass is sent as its plain value and arrives as an instance of a new subclass without
methods, so that methods that a candidate overrides (e.g. `__eq__`) never reach the tester. Anything else is sent as a handle: a
number that the channel turns into a proxy. Shared and cyclic mutable containers keep their structure: both sides number them in
the order in which they occur.

The decoder trusts nothing: it checks sizes, depths, indexes and types, and raises CodecError for anything wrong.
"""

import builtins
import collections
import datetime
import struct
from typing import Any

MAX_DEPTH = 200
MAX_ITEMS = 20_000_000  # maximum number of items in one message
SIGNED = struct.Struct("<q")
COUNT = struct.Struct("<Q")
REAL = struct.Struct("<d")
TYPES = {
    name: value for name, value in vars(builtins).items() if isinstance(value, type) and not issubclass(value, BaseException)
}
EXCEPTIONS = {
    name: value for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
}
NAMES = {value: name for name, value in {**TYPES, **EXCEPTIONS, "NoneType": type(None)}.items()}
BY_NAME = {name: value for value, name in NAMES.items()}
DATES: dict[str, Any] = {kind.__name__: kind for kind in (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)}
CONTAINERS = {  # letter in the encoding -> type of a mutable container
    b"l": list,
    b"d": dict,
    b"e": set,
    b"b": bytearray,
    b"q": collections.deque,
    b"o": collections.OrderedDict,
    b"k": collections.Counter,
    b"j": collections.defaultdict,
}
LETTERS = {kind: letter for letter, kind in CONTAINERS.items()}
MAPPINGS = (dict, collections.OrderedDict, collections.Counter, collections.defaultdict)
SUBCLASSED: tuple[Any, ...] = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)
VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
NUMPY_KINDS = "biufcSUmM"


class CodecError(Exception):
    """A value cannot be encoded, or a message cannot be decoded."""


def contents(container: Any) -> Any:
    """Return the contents of a mutable container as a new plain value, without running code of a subclass."""
    if isinstance(container, dict):
        ordered: Any = collections.OrderedDict if isinstance(container, collections.OrderedDict) else dict
        return [(key, dict.__getitem__(container, key)) for key in ordered.__iter__(container)]
    if isinstance(container, bytearray):
        return bytes(container)
    base: Any = next(kind for kind in (list, set, collections.deque) if isinstance(container, kind))
    return list(base.__iter__(container))


def refill(container: Any, new_contents: Any) -> None:
    """Replace the contents of a mutable container, in place.

    Raises:
        CodecError: `new_contents` does not fit this kind of container.
    """
    try:
        if isinstance(container, bytearray | list):
            container[:] = new_contents
        else:
            filled = dict(new_contents) if isinstance(container, dict) else new_contents
            container.clear()
            if isinstance(container, collections.deque):
                container.extend(filled)
            elif isinstance(container, dict):
                update(container, filled)
            else:
                container.update(filled)
    except (TypeError, ValueError) as error:
        raise CodecError(f"the new contents do not fit a {type(container).__name__}: {error}") from error


def update(mapping: Any, filled: Any) -> None:
    """Update a mapping without calling Counter.update, which adds counts; an OrderedDict keeps its order."""
    (collections.OrderedDict if isinstance(mapping, collections.OrderedDict) else dict).update(mapping, filled)
