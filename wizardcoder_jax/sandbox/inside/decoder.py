"""Decoder for the codec that the module `codec` describes."""

import collections
import datetime
import decimal
import fractions
import itertools
import sys
from array import array
from collections.abc import Callable, Iterable
from typing import Any

from .codec import (
    BY_NAME,
    CONTAINERS,
    COUNT,
    DATES,
    MAPPINGS,
    MAX_DEPTH,
    MAX_ITEMS,
    NUMPY_KINDS,
    REAL,
    SIGNED,
    SUBCLASSED,
    CodecError,
    update,
)


class Decoder:
    """Decodes one message that an Encoder has written.

    Args:
        data: the message.
        resolve: returns the value of a handle (letter, number); raises CodecError if there is none.
        table: the mutable containers of the previous message, in the order of their numbers.
    """

    def __init__(
        self, data: bytes | bytearray | memoryview, resolve: Callable[[bytes, int], Any], table: Iterable[Any] = ()
    ) -> None:
        self._data, self._at, self._resolve = memoryview(data), 0, resolve
        self.table = list(table)
        self._num_items = 0

    def decode(self) -> Any:
        """Return the value of the message.

        Raises:
            CodecError: the message is malformed.
            MemoryError: the value is too large.
        """
        try:
            value = self._value(0)
        except (CodecError, MemoryError):
            raise
        except Exception as error:  # any fault of the message, e.g. TypeError for a list as a key
            raise CodecError(f"malformed message: {type(error).__name__}: {error}") from error
        if self._at != len(self._data):
            raise CodecError("extra data after the end of the message")
        return value

    def _take(self, num_bytes: int) -> memoryview:
        if num_bytes < 0 or num_bytes > len(self._data) - self._at:
            raise CodecError("truncated message")
        start, self._at = self._at, self._at + num_bytes
        return self._data[start : self._at]

    def _count(self) -> int:
        return COUNT.unpack(self._take(8))[0]

    def _blob(self) -> bytes:
        return bytes(self._take(self._count()))

    def _text(self) -> str:
        return self._blob().decode("utf-8", "surrogatepass")

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH + 1:
            raise CodecError("the message is nested too deeply")
        letter = bytes(self._take(1))
        if letter in _ATOMS:
            return _ATOMS[letter](self)
        if letter in CONTAINERS:
            return self._container(letter, depth)
        if letter in b"tz":
            items = self._items(depth)
            return tuple(items) if letter == b"t" else frozenset(items)
        if letter in b"RDQMAUV":
            return self._extended(letter, depth)
        if letter in b"hH":
            return self._resolve(letter, self._count())
        raise CodecError(f"unknown letter {letter!r} for a value")

    def _container(self, letter: bytes, depth: int) -> Any:
        kind: Any = CONTAINERS[letter]
        if letter == b"b":
            value: Any = bytearray(self._blob())
            self.table.append(value)
            return value
        if letter == b"q":
            size = SIGNED.unpack(self._take(8))[0]
            value = collections.deque(maxlen=None if size < 0 else size)
        elif letter == b"j":
            value = collections.defaultdict(self._factory())
        else:
            value = kind()
        self.table.append(value)
        items = self._items(depth)
        if kind in MAPPINGS:
            update(value, zip(items, self._items(depth), strict=True))
        elif kind is set:
            value.update(items)
        else:
            value.extend(items)
        return value

    def _factory(self) -> Any:
        return None if bytes(self._take(1)) == b"N" else BY_NAME[self._blob().decode()]

    def _items(self, depth: int) -> list[Any]:
        letter, count = bytes(self._take(1)), self._count()
        self._num_items += count
        if self._num_items > MAX_ITEMS:
            raise CodecError(f"the message has more than {MAX_ITEMS} items")
        if letter == b"x":
            if count > len(self._data) - self._at:  # each item takes at least one byte
                raise CodecError("truncated message")
            return [self._value(depth + 1) for _ in range(count)]
        if letter == b"m":
            flat = self._items(depth)
            if not count or not flat or len(flat) % count:
                raise CodecError("packed tuples have unequal lengths")
            return list(zip(*[iter(flat)] * (len(flat) // count), strict=True))
        packed = array("d" if letter == b"f" else "q")
        packed.frombytes(self._take(8 * count))
        if sys.byteorder == "big":
            packed.byteswap()
        if letter in (b"q", b"f"):
            return packed.tolist()
        if letter == b"s":
            joined, ends = self._text(), list(itertools.accumulate(packed))
            if min(packed, default=0) < 0 or (ends or [0])[-1] != len(joined):
                raise CodecError("the lengths of packed strings do not match their text")
            known: dict[str, str] = {}  # equal strings become one object, as they mostly were on the other side
            strings = (joined[start:end] for start, end in zip([0, *ends], ends, strict=False))
            return [known.setdefault(string, string) for string in strings]
        raise CodecError(f"unknown letter {letter!r} for a sequence")

    def _extended(self, letter: bytes, depth: int) -> Any:
        fields = self._value(depth + 1)
        if letter == b"U":
            name, names, base = fields
            return _instance(name, names, base, self._value(depth + 1))
        if letter == b"A":
            return _array(*fields)
        if letter == b"M":
            return _date(*fields)
        if letter == b"V":
            return _view(*fields)
        if letter == b"R":
            return range(*fields)
        return decimal.Decimal(fields) if letter == b"D" else fractions.Fraction(*fields)

    def _ref(self) -> Any:
        number = self._count()
        if number >= len(self.table):
            raise CodecError(f"reference to unknown container {number}")
        return self.table[number]


_ATOMS: dict[bytes, Callable[[Decoder], Any]] = {
    b"N": lambda source: None,
    b"T": lambda source: True,
    b"F": lambda source: False,
    b"E": lambda source: Ellipsis,
    b"i": lambda source: SIGNED.unpack(source._take(8))[0],
    b"f": lambda source: REAL.unpack(source._take(8))[0],
    b"c": lambda source: complex(REAL.unpack(source._take(8))[0], REAL.unpack(source._take(8))[0]),
    b"I": lambda source: int.from_bytes(source._take(source._count()), "little", signed=True),
    b"s": lambda source: source._text(),
    b"y": lambda source: source._blob(),
    b"Y": lambda source: BY_NAME[source._text()],
    b"r": lambda source: source._ref(),
}


def fresh_class(name: Any, base: type) -> type:
    """Return a new subclass of `base` with the given name and no attributes."""
    return type(name if type(name) is str and name.isidentifier() else base.__name__, (base,), {})


def _instance(name: Any, fields: Any, base_name: str, plain: Any) -> Any:
    """Return `plain` as an instance of a new subclass of its type, or as a named tuple if there are fields."""
    base = BY_NAME[base_name]
    if type(plain) is not base or base not in SUBCLASSED:
        raise CodecError(f"the plain value of a subclass of {base_name} has another type")
    if base is bool:
        return plain
    if fields and len(fields) == len(plain):
        return collections.namedtuple(name if name.isidentifier() else "Named", fields)._make(plain)
    made: Any = fresh_class(name, base)
    return made(plain)


def _array(dtype: str, shape: tuple[int, ...], data: bytes, scalar: bool) -> Any:
    import numpy

    if numpy.dtype(dtype).kind not in NUMPY_KINDS:
        raise CodecError(f"arrays of dtype {dtype} cannot be decoded")
    whole = numpy.frombuffer(data, dtype=dtype).reshape(shape).copy()
    return whole[()] if scalar else whole


def _date(name: str, fields: tuple[Any, ...]) -> Any:
    if name not in ("datetime", "time"):
        return DATES[name](*fields)
    *numbers, zone, fold = fields
    return DATES[name](*numbers, tzinfo=None if zone is None else datetime.timezone(zone), fold=fold)


def _view(name: str, items: list[Any]) -> Any:
    if name == "dict_keys":
        return dict.fromkeys(items).keys()
    return dict(items).items() if name == "dict_items" else dict(enumerate(items)).values()
