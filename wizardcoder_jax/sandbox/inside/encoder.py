"""Encoder for the codec that the module `codec` describes."""

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
    COUNT,
    DATES,
    LETTERS,
    MAPPINGS,
    MAX_DEPTH,
    NAMES,
    NUMPY_KINDS,
    REAL,
    SIGNED,
    SUBCLASSED,
    VIEWS,
    CodecError,
    contents,
)


class Encoder:
    """Encodes one message.

    Args:
        handle_of: returns the handle (letter, number) of a value that is not sent by value, or raises CodecError.
        table: mutable containers that the other side already knows, in the order of their numbers.
    """

    def __init__(self, handle_of: Callable[[Any], tuple[bytes, int]], table: Iterable[Any] = ()) -> None:
        self._handle_of = handle_of
        self.table = list(table)  # also keeps the containers alive, so that no id is reused
        self._seen = {id(container): i for i, container in enumerate(self.table)}
        self._out = bytearray()
        self._alive: list[Any] = []

    def encode(self, value: Any) -> bytearray:
        """Return the bytes of `value`.

        Raises:
            CodecError: the value is nested too deeply, or cannot be sent at all.
        """
        self._value(value, 0)
        return self._out

    def _put(self, *parts: bytes) -> None:
        for part in parts:
            self._out += part

    def _blob(self, letter: bytes, data: bytes) -> None:
        self._put(letter, COUNT.pack(len(data)), data)

    def _value(self, value: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise CodecError(f"the value is nested deeper than {MAX_DEPTH} levels")
        kind = type(value)
        if kind in LETTERS:
            self._container(value, kind, depth)
        elif kind is tuple or kind is frozenset:
            self._put(b"t" if kind is tuple else b"z")
            self._items(list(value), depth)
        elif not self._atom(value, kind) and not self._extended(value, kind, depth):
            self._put(*self._handle(value))

    def _handle(self, value: Any) -> tuple[bytes, bytes]:
        letter, number = self._handle_of(value)
        return letter, COUNT.pack(number)

    def _atom(self, value: Any, kind: type) -> bool:
        if value is None or kind is bool:
            self._put(b"N" if value is None else b"T" if value else b"F")
        elif kind is int:
            if -(1 << 63) <= value < 1 << 63:
                self._put(b"i", SIGNED.pack(value))
            else:
                self._blob(b"I", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        elif kind is float:
            self._put(b"f", REAL.pack(value))
        elif kind is str:
            self._blob(b"s", value.encode("utf-8", "surrogatepass"))
        elif kind is bytes:
            self._blob(b"y", value)
        elif kind is complex:
            self._put(b"c", REAL.pack(value.real), REAL.pack(value.imag))
        elif value is Ellipsis:
            self._put(b"E")
        else:
            return False
        return True

    def _container(self, value: Any, kind: type, depth: int) -> None:
        known = self._seen.get(id(value))
        if known is not None:
            self._put(b"r", COUNT.pack(known))
            return
        self._seen[id(value)] = len(self.table)
        self.table.append(value)
        self._put(LETTERS[kind])
        if kind is bytearray:
            self._blob(b"", bytes(value))
        elif kind in MAPPINGS:
            factory = getattr(value, "default_factory", None)
            if kind is collections.defaultdict:
                self._put(b"Y" if factory in NAMES else b"N")
                if factory in NAMES:
                    self._blob(b"", NAMES[factory].encode())
            self._items(list(value), depth)
            self._items(list(value.values()), depth)
        else:
            if kind is collections.deque:
                self._put(SIGNED.pack(-1 if value.maxlen is None else value.maxlen))
            self._items(list(value), depth)

    def _items(self, items: list[Any], depth: int) -> None:
        """Encode a sequence; pack it as one block if all items are int, float, str, or tuples of one of these types."""
        kinds = set(map(type, items)) if len(items) > 3 else set()
        if kinds == {int}:
            try:
                packed = array("q", items)
            except OverflowError:
                pass
            else:
                self._put(b"q", COUNT.pack(len(items)), _native(packed))
                return
        elif kinds == {float}:
            self._put(b"f", COUNT.pack(len(items)), _native(array("d", items)))
            return
        elif kinds == {str}:
            joined = "".join(items).encode("utf-8", "surrogatepass")
            self._put(b"s", COUNT.pack(len(items)), _native(array("q", map(len, items))))
            self._blob(b"", joined)
            return
        elif kinds == {tuple} and len(set(map(len, items))) == 1:
            flat = list(itertools.chain.from_iterable(items))
            if set(map(type, flat)) in ({int}, {float}, {str}):
                self._put(b"m", COUNT.pack(len(items)))
                self._items(flat, depth)
                return
        self._put(b"x", COUNT.pack(len(items)))
        for item in items:
            self._value(item, depth + 1)

    def _extended(self, value: Any, kind: Any, depth: int) -> bool:
        if issubclass(kind, type):
            if value not in NAMES:
                return False
            self._blob(b"Y", NAMES[value].encode())
        elif kind is range:
            self._plain(b"R", (value.start, value.stop, value.step), depth)
        elif kind is decimal.Decimal:
            self._plain(b"D", str(value), depth)
        elif kind is fractions.Fraction:
            self._plain(b"Q", (value.numerator, value.denominator), depth)
        elif kind in DATES.values():
            self._date(value, kind, depth)
        elif kind in VIEWS:
            self._plain(b"V", (kind.__name__, list(value)), depth)
        elif _is_numpy(value, kind):
            self._numpy(value, depth)
        else:
            return self._subclass(value, kind, depth)
        return True

    def _plain(self, letter: bytes, value: Any, depth: int) -> None:
        self._put(letter)
        self._value(value, depth + 1)

    def _date(self, value: Any, kind: type, depth: int) -> None:
        if kind is datetime.timedelta:
            fields: tuple[Any, ...] = (value.days, value.seconds, value.microseconds)
        elif kind is datetime.date:
            fields = (value.year, value.month, value.day)
        else:
            zone = None if value.tzinfo is None else value.utcoffset()
            day = (value.year, value.month, value.day) if kind is datetime.datetime else ()
            fields = (*day, value.hour, value.minute, value.second, value.microsecond, zone, value.fold)
        self._plain(b"M", (kind.__name__, fields), depth)

    def _numpy(self, value: Any, depth: int) -> None:
        numpy = sys.modules["numpy"]
        whole = numpy.asarray(value)
        fields = (whole.dtype.str, whole.shape, whole.tobytes(), isinstance(value, numpy.generic))
        self._plain(b"A", fields, depth)

    def _subclass(self, value: Any, kind: type, depth: int) -> bool:
        base: Any = next((base for base in SUBCLASSED if isinstance(value, base)), None)
        if base is None:
            return False
        name = type.__dict__["__name__"].__get__(kind)
        if base in (tuple, frozenset, list, set):
            plain: Any = base(base.__iter__(value))
        elif base is dict:
            plain = dict(contents(value))
        elif base in (str, bytes, bytearray):
            plain = base.__getitem__(value, slice(None)) if base is not str else str.__str__(value)
        elif base is complex:
            plain = complex(complex.__dict__["real"].__get__(value), complex.__dict__["imag"].__get__(value))
        else:
            plain = base.__add__(value, 0) if base is int else float.__float__(value)
        fields = getattr(kind, "_fields", ()) if base is tuple else ()
        named = type(fields) is tuple and all(type(field) is str for field in fields)
        self._alive.append(plain)  # keep `plain` alive, so that its id is not reused
        self._plain(b"U", (name, fields if named else (), NAMES[base]), depth)
        self._value(plain, depth + 1)
        return True


def _native(packed: "array[Any]") -> bytes:
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _is_numpy(value: Any, kind: type) -> bool:
    numpy = sys.modules.get("numpy")
    if numpy is None or not (kind is getattr(numpy, "ndarray", None) or isinstance(value, getattr(numpy, "generic", ()))):
        return False
    return value.dtype.kind in NUMPY_KINDS and value.dtype.fields is None
