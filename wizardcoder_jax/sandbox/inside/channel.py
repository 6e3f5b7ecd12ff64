"""Calls between tester and candidate: one side asks for an operation on a value, the other answers; either may call back.

A frame is one letter and an encoded value: `C` (operation, target, args, kwargs), `R` (changes, result) or `X` (changes,
error). A value that does not cross is exported: the other side holds a proxy, which names it by its number. The tester
exports functions alone, and lets only calls be made on them.

Mutable arguments: whoever answers sends back what became of them, and the asker's own objects change likewise.
"""

import operator
import socket
import threading
from collections.abc import Callable
from typing import Any

from . import wire
from .codec import EXCEPTIONS, CodecError, contents, refill
from .decoder import Decoder, fresh_class
from .encoder import Encoder

MAX_MESSAGE_CHARS = 2000
_WARM_ROUNDS = 20


class Broken(BaseException):
    """The other side is gone, or does not keep to the protocol."""


class CannotCross(BaseException):
    """A value that the other side must not or cannot be given."""


class Proxy:
    """A value of the other side: calls, attributes, items and iteration go there; comparing does not, and is by identity.

    So what the test compares is either a plain value on this side, or not equal to anything else; and what the test
    compares with never goes to the other side.
    """

    __slots__ = ("_channel", "_number")

    def __init__(self, channel: "Channel", number: int) -> None:
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the call gives there."""
        return self._channel.ask("call", self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._channel.ask("getattr", self, (name,))

    def __setattr__(self, name: str, value: Any) -> None:
        self._channel.ask("setattr", self, (name, value))

    def __getitem__(self, key: Any) -> Any:
        return self._channel.ask("getitem", self, (key,))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._channel.ask("setitem", self, (key, value))

    def __iter__(self) -> Any:
        return self._channel.ask("iter", self)

    def __next__(self) -> Any:
        return self._channel.ask("next", self)

    def __len__(self) -> int:
        return self._channel.ask("len", self)

    def __bool__(self) -> bool:
        return self._channel.ask("bool", self)

    def __str__(self) -> str:
        return self._channel.ask("str", self)

    def __repr__(self) -> str:
        return self._channel.ask("repr", self)

    def __reduce__(self) -> Any:
        raise TypeError("this value lives in another process")

    def __copy__(self) -> "Proxy":
        return self

    def __deepcopy__(self, memo: Any) -> "Proxy":
        return self


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda target, *args, **kwargs: target(*args, **kwargs),
    "getattr": getattr,
    "setattr": setattr,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "iter": iter,
    "next": next,
    "len": len,
    "bool": bool,
    "str": str,
    "repr": repr,
}


class Channel:
    """One end of the connection.

    Args:
        connection: to the other side.
        may_export: whether a value that does not cross may be named to the other side.
        operations: what the other side may ask for.
    """

    def __init__(
        self, connection: socket.socket, may_export: Callable[[Any], bool], operations: tuple[str, ...] = tuple(_OPERATIONS)
    ) -> None:
        self._connection, self._may_export, self._operations = connection, may_export, operations
        self._exported: list[Any] = []
        self._numbers: dict[int, int] = {}  # id -> place in _exported, which keeps it alive
        self._proxies: dict[int, Proxy] = {}
        self._lock = threading.RLock()
        self._torn = False

    def export(self, value: Any) -> int:
        """The number under which the other side knows a value."""
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._exported)
            self._exported.append(value)
        return number

    def proxy(self, number: int) -> Proxy:
        """What stands for the other side's value of that number."""
        return self._proxies.setdefault(number, Proxy(self, number))

    def ask(self, operation: str, target: Proxy, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """What the other side answers; raises what it raised.

        Raises:
            Broken, CannotCross: see there.
        """
        with self._lock:
            encoder = Encoder(self._handle_of)
            try:
                question = b"C" + encoder.encode((operation, target, args, kwargs or {}))
            except CodecError as error:
                raise CannotCross(str(error)) from error
            self._send(question)
            while True:
                frame = self._receive()
                if frame[:1] != b"C":
                    return self._answer(frame, encoder.table)
                self.serve(frame)

    def serve(self, frame: bytearray | None = None) -> None:
        """Answers one question: `frame`, or the next that comes."""
        frame = self._receive() if frame is None else frame
        decoder, (operation, target, args, kwargs) = self._decode(frame)
        if frame[:1] != b"C" or operation not in self._operations or type(args) is not tuple or type(kwargs) is not dict:
            raise Broken("not a question")
        before = [contents(container) for container in decoder.table]
        try:
            letter, result = b"R", _OPERATIONS[operation](target, *args, **kwargs)
        except (Broken, CannotCross):
            raise
        except BaseException as error:
            letter, result = b"X", describe(error)
        changed = self._changes(decoder.table, before)
        try:
            self._send(letter + Encoder(self._handle_of, decoder.table).encode((changed, result)))
        except CodecError as error:
            refusal = describe(ValueError(f"a result that cannot be handed over: {error}"))
            self._send(b"X" + Encoder(self._handle_of, decoder.table).encode(((), refusal)))

    def _changes(self, table: list[Any], before: list[Any]) -> tuple[Any, ...]:
        found = []
        for number, (container, old) in enumerate(zip(table, before, strict=True)):
            new = contents(container)
            if not _same(old, new):
                found.append((number, new))
        return tuple(found)

    def _answer(self, frame: bytes | bytearray, table: list[Any]) -> Any:
        _, (changes, result) = self._decode(frame, table)
        try:
            for number, held in changes:
                refill(table[number], held)
        except (TypeError, ValueError, IndexError, CodecError) as error:
            raise Broken(f"changed arguments: {error}") from error
        if frame[:1] == b"R":
            return result
        if frame[:1] == b"X":
            raise rebuilt(result)
        raise Broken("not an answer")

    def _decode(self, frame: bytes | bytearray, table: tuple[Any, ...] | list[Any] = ()) -> tuple[Decoder, tuple[Any, ...]]:
        decoder = Decoder(memoryview(frame)[1:], self._resolve, table)
        try:
            value = decoder.decode()
        except CodecError as error:
            raise Broken(str(error)) from error
        if type(value) is not tuple or len(value) != (4 if frame[:1] == b"C" else 2):
            raise Broken("a message of another form")
        return decoder, value

    def _handle_of(self, value: Any) -> tuple[bytes, int]:
        if type(value) is Proxy:
            return b"H", object.__getattribute__(value, "_number")
        if not self._may_export(value):
            raise CodecError(f"a {type(value).__name__} cannot be handed over")
        return b"h", self.export(value)

    def _resolve(self, letter: bytes, number: int) -> Any:
        if letter == b"h":
            return self.proxy(number)
        if number >= len(self._exported):
            raise CodecError("a name for nothing")
        return self._exported[number]

    def _send(self, frame: bytes | bytearray) -> None:
        self._whole_or_broken(wire.send, self._connection, frame)

    def _receive(self) -> bytearray:
        return self._whole_or_broken(wire.receive, self._connection)

    def _whole_or_broken(self, transfer: Callable[..., Any], *arguments: Any) -> Any:
        """Transfers a frame; one that a signal's handler interrupted leaves nothing that could be gone on with."""
        if self._torn:
            raise Broken("a call was interrupted")
        self._torn = True
        try:
            result = transfer(*arguments)
        except wire.Gone as error:
            raise Broken(str(error)) from error
        self._torn = False
        return result


def _same(old: Any, new: Any) -> bool:
    """Whether a container holds the very same objects as before."""
    if isinstance(old, bytes):
        return old == new
    if len(old) != len(new):
        return False
    if old and type(old[0]) is tuple and len(old[0]) == 2:  # a mapping's pairs are new tuples each time
        pairs = zip(old, new, strict=True)
        return all(a is b or (type(b) is tuple and len(b) == len(a) and all(map(operator.is_, a, b))) for a, b in pairs)
    return all(map(operator.is_, old, new))


def describe(error: BaseException) -> tuple[str, str, tuple[Any, ...], str]:
    """(type's name, nearest builtin type's name, plain arguments, text); the error's own code may run here."""
    kind = type(error)
    base = next(name for ancestor in kind.__mro__ for name, known in EXCEPTIONS.items() if ancestor is known)
    try:
        text = str(error)[:MAX_MESSAGE_CHARS]
    except BaseException:
        text = ""
    args = error.args if type(error.args) is tuple else ()
    plain = tuple(arg for arg in args if type(arg) in (str, int, float, bool, bytes, type(None)))
    short = len(plain) == len(args) and sum(len(arg) for arg in plain if isinstance(arg, (str, bytes))) < MAX_MESSAGE_CHARS
    name = type.__dict__["__name__"].__get__(kind)  # not kind.__name__, which a metaclass can answer
    return str(name)[:80], base, plain if short and args else (str(text),), str(text)


def rebuilt(described: Any) -> BaseException:
    """An exception of the builtin type that was described, or of a fresh subclass of it."""
    try:
        name, base_name, args, text = described
        base = EXCEPTIONS[base_name]
        kind = base if name == base_name else fresh_class(name, base)
        try:
            return kind(*args)
        except Exception:  # e.g. UnicodeDecodeError, which wants five arguments
            return fresh_class(name, Exception)(text)
    except Exception as error:
        raise Broken(f"an error of another form: {error}") from error


def warm_up() -> None:
    """Asks and answers for a while within this process.

    The interpreter rewrites code that runs often; what is rewritten here, before a fork, is shared by all processes after it.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        asker, answerer = Channel(ours, callable), Channel(theirs, callable)
        target = asker.proxy(answerer.export(lambda *values: values))
        for _ in range(_WARM_ROUNDS):
            encoder = Encoder(asker._handle_of)
            values = ([1, 2, 3, 4, [5.0]], {"a": ("b", None, True)}, {1}, "text", 1.5, target)
            asker._send(b"C" + encoder.encode(("call", target, values, {})))
            answerer.serve()
            asker._answer(asker._receive(), encoder.table)
            exec(compile("def f(x): return [y for y in x]\nf([1])", "<program>", "exec"), {})
