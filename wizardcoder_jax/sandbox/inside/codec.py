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
import decimal
import fractions
import struct
import sys
from array import array
from collections.abc import Callable, Iterable
from typing import Any

MAX_DEPTH = 200
MAX_ITEMS = 20_000_000  # of one message
_Q = struct.Struct("<q")
_N = struct.Struct("<Q")
_D = struct.Struct("<d")
_TYPES = {
    name: value for name, value in vars(builtins).items() if isinstance(value, type) and not issubclass(value, BaseException)
}
EXCEPTIONS = {
    name: value for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
}
_NAMES = {value: name for name, value in {**_TYPES, **EXCEPTIONS, "NoneType": type(None)}.items()}
_BY_NAME = {name: value for value, name in _NAMES.items()}
_DATES = {kind.__name__: kind for kind in (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)}
_CONTAINERS = {  # mutable: letter -> type
    b"l": list,
    b"d": dict,
    b"e": set,
    b"b": bytearray,
    b"q": collections.deque,
    b"o": collections.OrderedDict,
    b"k": collections.Counter,
    b"j": collections.defaultdict,
}
_LETTERS = {kind: letter for letter, kind in _CONTAINERS.items()}
_MAPPINGS = (dict, collections.OrderedDict, collections.Counter, collections.defaultdict)
_SUBCLASSED = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)
_VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
_NUMPY_KINDS = "biufcSUmM"


class CodecError(Exception):
    """A value or a message that cannot cross."""


def contents(container: Any) -> Any:
    """What a mutable container holds, as a new plain value, without running code of a subclass."""
    if isinstance(container, dict):
        ordered = collections.OrderedDict if isinstance(container, collections.OrderedDict) else dict
        return [(key, dict.__getitem__(container, key)) for key in ordered.__iter__(container)]
    if isinstance(container, bytearray):
        return bytes(container)
    base = next(kind for kind in (list, set, collections.deque) if isinstance(container, kind))
    return list(base.__iter__(container))


def refill(container: Any, held: Any) -> None:
    """Makes a mutable container hold `held`, in place.

    Raises:
        CodecError: `held` does not fit this kind of container.
    """
    try:
        if isinstance(container, bytearray):
            container[:] = held
        elif isinstance(container, list):
            container[:] = held
        else:
            filled = dict(held) if isinstance(container, dict) else held
            container.clear()
            if isinstance(container, collections.deque):
                container.extend(filled)
            elif isinstance(container, dict):
                _update(container, filled)
            else:
                container.update(filled)
    except (TypeError, ValueError) as error:
        raise CodecError(f"changed argument: {error}") from error


def _update(mapping: Any, filled: Any) -> None:
    """dict.update, but in order for an OrderedDict, and without the adding of a Counter."""
    (collections.OrderedDict if isinstance(mapping, collections.OrderedDict) else dict).update(mapping, filled)


class Encoder:
    """Writes values; one for each message.

    Args:
        handle_of: gives (letter, number) of a value that crosses as a handle, or raises CodecError.
        table: mutable containers that the other side knows already, in its order.
    """

    def __init__(self, handle_of: Callable[[Any], tuple[bytes, int]], table: Iterable[Any] = ()) -> None:
        self._handle_of = handle_of
        self.table = list(table)  # also keeps everything alive, so that an id stays one object's
        self._seen = {id(container): i for i, container in enumerate(self.table)}
        self._out: list[bytes] = []
        self._alive: list[Any] = []

    def encode(self, value: Any) -> bytes:
        """The bytes of `value`.

        Raises:
            CodecError: too deep or too many items, or a value that cannot cross at all.
        """
        self._value(value, 0)
        return b"".join(self._out)

    def _put(self, *parts: bytes) -> None:
        self._out.extend(parts)

    def _blob(self, letter: bytes, data: bytes) -> None:
        self._put(letter, _N.pack(len(data)), data)

    def _value(self, value: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise CodecError(f"nested deeper than {MAX_DEPTH}")
        kind = type(value)
        if kind in _LETTERS:
            self._container(value, kind, depth)
        elif kind is tuple or kind is frozenset:
            self._put(b"t" if kind is tuple else b"z")
            self._items(list(value), depth)
        elif not self._atom(value, kind) and not self._extended(value, kind, depth):
            self._put(*self._handle(value))

    def _handle(self, value: Any) -> tuple[bytes, bytes]:
        letter, number = self._handle_of(value)
        return letter, _N.pack(number)

    def _atom(self, value: Any, kind: type) -> bool:
        if value is None or kind is bool:
            self._put(b"N" if value is None else b"T" if value else b"F")
        elif kind is int:
            if -(1 << 63) <= value < 1 << 63:
                self._put(b"i", _Q.pack(value))
            else:
                self._blob(b"I", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        elif kind is float:
            self._put(b"f", _D.pack(value))
        elif kind is str:
            self._blob(b"s", value.encode("utf-8", "surrogatepass"))
        elif kind is bytes:
            self._blob(b"y", value)
        elif kind is complex:
            self._put(b"c", _D.pack(value.real), _D.pack(value.imag))
        elif value is Ellipsis:
            self._put(b"E")
        else:
            return False
        return True

    def _container(self, value: Any, kind: type, depth: int) -> None:
        known = self._seen.get(id(value))
        if known is not None:
            self._put(b"r", _N.pack(known))
            return
        self._seen[id(value)] = len(self.table)
        self.table.append(value)
        self._put(_LETTERS[kind])
        if kind is bytearray:
            self._blob(b"", bytes(value))
        elif kind in _MAPPINGS:
            factory = getattr(value, "default_factory", None)
            if kind is collections.defaultdict:
                self._put(b"Y" if factory in _NAMES else b"N")
                if factory in _NAMES:
                    self._blob(b"", _NAMES[factory].encode())
            self._items(list(value), depth)
            self._items(list(value.values()), depth)
        else:
            if kind is collections.deque:
                self._put(_Q.pack(-1 if value.maxlen is None else value.maxlen))
            self._items(list(value), depth)

    def _items(self, items: list[Any], depth: int) -> None:
        """A sequence: numbers or texts of one type in one piece, else one by one."""
        kinds = set(map(type, items)) if len(items) > 3 else set()
        if kinds == {int}:
            try:
                packed = array("q", items)
            except OverflowError:
                pass
            else:
                self._put(b"q", _N.pack(len(items)), _native(packed))
                return
        elif kinds == {float}:
            self._put(b"f", _N.pack(len(items)), _native(array("d", items)))
            return
        elif kinds == {str}:
            texts = [item.encode("utf-8", "surrogatepass") for item in items]
            self._put(b"s", _N.pack(len(items)), _native(array("q", map(len, texts))), *texts)
            return
        self._put(b"x", _N.pack(len(items)))
        for item in items:
            self._value(item, depth + 1)

    def _extended(self, value: Any, kind: type, depth: int) -> bool:
        if kind is type or (isinstance(value, type) and value in _NAMES):
            if value not in _NAMES:
                return False
            self._blob(b"Y", _NAMES[value].encode())
        elif kind is range:
            self._plain(b"R", (value.start, value.stop, value.step), depth)
        elif kind is decimal.Decimal:
            self._plain(b"D", str(value), depth)
        elif kind is fractions.Fraction:
            self._plain(b"Q", (value.numerator, value.denominator), depth)
        elif kind in _DATES.values():
            self._date(value, kind, depth)
        elif kind in _VIEWS:
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
        base = next((base for base in _SUBCLASSED if isinstance(value, base)), None)
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
        self._alive.append(plain)  # so that its id is not given to another
        self._plain(b"U", (name, fields if named else (), _NAMES[base]), depth)
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
    return value.dtype.kind in _NUMPY_KINDS and value.dtype.fields is None


class Decoder:
    """Reads one message; see Encoder.

    Args:
        data: the message.
        resolve: the value that (letter, number) stands for; raises CodecError where there is none.
        table: the mutable containers of the message before, in its order.
    """

    def __init__(self, data: bytes, resolve: Callable[[bytes, int], Any], table: Iterable[Any] = ()) -> None:
        self._data, self._at, self._resolve = memoryview(data), 0, resolve
        self.table = list(table)
        self._num_items = 0

    def decode(self) -> Any:
        """The value of the whole message.

        Raises:
            CodecError: the message is not what an Encoder writes.
            MemoryError: it is too much.
        """
        try:
            value = self._value(0)
        except (CodecError, MemoryError):
            raise
        except Exception as error:  # every malformed message ends here, e.g. a list as a key: TypeError
            raise CodecError(f"malformed message: {type(error).__name__}: {error}") from error
        if self._at != len(self._data):
            raise CodecError("a message with something after its end")
        return value

    def _take(self, num_bytes: int) -> memoryview:
        if num_bytes < 0 or num_bytes > len(self._data) - self._at:
            raise CodecError("a message that is cut off")
        start, self._at = self._at, self._at + num_bytes
        return self._data[start : self._at]

    def _count(self) -> int:
        return _N.unpack(self._take(8))[0]

    def _blob(self) -> bytes:
        return bytes(self._take(self._count()))

    def _text(self) -> str:
        return self._blob().decode("utf-8", "surrogatepass")

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH + 1:
            raise CodecError("a message nested too deeply")
        letter = bytes(self._take(1))
        if letter in _ATOMS:
            return _ATOMS[letter](self)
        if letter in _CONTAINERS:
            return self._container(letter, depth)
        if letter in b"tz":
            items = self._items(depth)
            return tuple(items) if letter == b"t" else frozenset(items)
        if letter in b"RDQMAUV":
            return self._extended(letter, depth)
        if letter in b"hH":
            return self._resolve(letter, self._count())
        raise CodecError(f"unknown letter {letter!r}")

    def _container(self, letter: bytes, depth: int) -> Any:
        kind = _CONTAINERS[letter]
        if letter == b"b":
            value: Any = bytearray(self._blob())
            self.table.append(value)
            return value
        if letter == b"q":
            size = _Q.unpack(self._take(8))[0]
            value = collections.deque(maxlen=None if size < 0 else size)
        elif letter == b"j":
            value = collections.defaultdict(self._factory())
        else:
            value = kind()
        self.table.append(value)
        items = self._items(depth)
        if kind in _MAPPINGS:
            _update(value, zip(items, self._items(depth), strict=True))
        elif kind is set:
            value.update(items)
        else:
            value.extend(items)
        return value

    def _factory(self) -> Any:
        return None if bytes(self._take(1)) == b"N" else _BY_NAME[self._blob().decode()]

    def _items(self, depth: int) -> list[Any]:
        letter, count = bytes(self._take(1)), self._count()
        self._num_items += count
        if self._num_items > MAX_ITEMS:
            raise CodecError(f"more than {MAX_ITEMS} items")
        if letter == b"x":
            if count > len(self._data) - self._at:  # each takes a byte or more
                raise CodecError("a message that is cut off")
            return [self._value(depth + 1) for _ in range(count)]
        packed = array("d" if letter == b"f" else "q")
        packed.frombytes(self._take(8 * count))
        if sys.byteorder == "big":
            packed.byteswap()
        if letter in (b"q", b"f"):
            return packed.tolist()
        if letter == b"s":
            return [bytes(self._take(size)).decode("utf-8", "surrogatepass") for size in packed]
        raise CodecError(f"unknown sequence {letter!r}")

    def _extended(self, letter: bytes, depth: int) -> Any:
        fields = self._value(depth + 1)
        if letter == b"U":
            return _instance(*fields, self._value(depth + 1))
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
            raise CodecError("a reference to nothing")
        return self.table[number]


_ATOMS: dict[bytes, Callable[[Decoder], Any]] = {
    b"N": lambda source: None,
    b"T": lambda source: True,
    b"F": lambda source: False,
    b"E": lambda source: Ellipsis,
    b"i": lambda source: _Q.unpack(source._take(8))[0],
    b"f": lambda source: _D.unpack(source._take(8))[0],
    b"c": lambda source: complex(_D.unpack(source._take(8))[0], _D.unpack(source._take(8))[0]),
    b"I": lambda source: int.from_bytes(source._take(source._count()), "little", signed=True),
    b"s": lambda source: source._text(),
    b"y": lambda source: source._blob(),
    b"Y": lambda source: _BY_NAME[source._text()],
    b"r": lambda source: source._ref(),
}


def fresh_class(name: Any, base: type) -> type:
    """A subclass of `base` under that name, with nothing of its own."""
    return type(name if type(name) is str and name.isidentifier() else base.__name__, (base,), {})


def _instance(name: Any, fields: Any, base_name: str, plain: Any) -> Any:
    """An instance of a fresh subclass: a named tuple's where there are fields."""
    base = _BY_NAME[base_name]
    if type(plain) is not base or base not in _SUBCLASSED:
        raise CodecError("a subclass's plain part of another type")
    if base is bool:
        return plain
    if fields and len(fields) == len(plain):
        return collections.namedtuple(name if name.isidentifier() else "Named", fields)._make(plain)  # noqa: PYI024
    return fresh_class(name, base)(plain)


def _array(dtype: str, shape: tuple[int, ...], data: bytes, scalar: bool) -> Any:
    import numpy

    if numpy.dtype(dtype).kind not in _NUMPY_KINDS:
        raise CodecError(f"an array of {dtype}")
    whole = numpy.frombuffer(data, dtype=dtype).reshape(shape).copy()
    return whole[()] if scalar else whole


def _date(name: str, fields: tuple[Any, ...]) -> Any:
    if name not in ("datetime", "time"):
        return _DATES[name](*fields)
    *numbers, zone, fold = fields
    return _DATES[name](*numbers, tzinfo=None if zone is None else datetime.timezone(zone), fold=fold)


def _view(name: str, items: list[Any]) -> Any:
    if name == "dict_keys":
        return dict.fromkeys(items).keys()
    return dict(items).items() if name == "dict_items" else dict(enumerate(items)).values()
