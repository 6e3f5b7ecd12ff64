"""The closed codec: how values cross between tester and candidate.

What crosses by value is a plain type: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set,
frozenset, range, the containers of `collections`, Decimal, Fraction, the types of `datetime`, numpy's arrays and numbers,
and builtin types by name. Of an instance of a subclass the plain part crosses, and arrives as an instance of a fresh
subclass without methods: what a candidate overrides (`__eq__`) never reaches the tester. Anything else crosses as a handle:
a number, which the channel turns into a proxy. Shared and cyclic mutable containers keep their shape: each is numbered in the
order in which it is met, on both sides alike.

A decoder believes nothing: sizes, depths, indexes and types are checked, and whatever is wrong raises CodecError.
"""

import builtins
import collections
import datetime
import struct
from typing import Any

MAX_DEPTH = 200
MAX_ITEMS = 20_000_000  # of one message
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
CONTAINERS = {  # mutable: letter -> type
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
    """A value or a message that cannot cross."""


def contents(container: Any) -> Any:
    """What a mutable container holds, as a new plain value, without running code of a subclass."""
    if isinstance(container, dict):
        ordered: Any = collections.OrderedDict if isinstance(container, collections.OrderedDict) else dict
        return [(key, dict.__getitem__(container, key)) for key in ordered.__iter__(container)]
    if isinstance(container, bytearray):
        return bytes(container)
    base: Any = next(kind for kind in (list, set, collections.deque) if isinstance(container, kind))
    return list(base.__iter__(container))


def refill(container: Any, held: Any) -> None:
    """Makes a mutable container hold `held`, in place.

    Raises:
        CodecError: `held` does not fit this kind of container.
    """
    try:
        if isinstance(container, bytearray | list):
            container[:] = held
        else:
            filled = dict(held) if isinstance(container, dict) else held
            container.clear()
            if isinstance(container, collections.deque):
                container.extend(filled)
            elif isinstance(container, dict):
                update(container, filled)
            else:
                container.update(filled)
    except (TypeError, ValueError) as error:
        raise CodecError(f"changed argument: {error}") from error


def update(mapping: Any, filled: Any) -> None:
    """dict.update, but in order for an OrderedDict, and without the adding of a Counter."""
    (collections.OrderedDict if isinstance(mapping, collections.OrderedDict) else dict).update(mapping, filled)
