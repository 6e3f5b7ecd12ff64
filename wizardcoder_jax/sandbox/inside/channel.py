"""Remote calls between tester and candidate: one side requests an operation on a value, and the other side replies.

A frame is one letter and an encoded value: `C` (operation, target, args, kwargs) is a request, `R` (changes, result) a reply,
`X` (changes, error) an exception. Before it replies, a side may send requests of its own. A value that cannot be sent by value
is exported: the other side gets a proxy that refers to it by number. The tester exports only functions, and allows only calls
to them.

If an operation changes a mutable argument, the reply contains the new contents, and the requesting side updates its own object.
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


class ProtocolError(BaseException):
    """The other side has disconnected or violated the protocol; a BaseException, so that no `except Exception` catches it."""


class CannotCrossError(BaseException):
    """A value must not or cannot be sent to the other side; a BaseException, so that no `except Exception` catches it."""


class Proxy:
    """Stands for a value on the other side: calls, attributes, items and iteration are forwarded, comparisons are not.

    A proxy is equal only to itself. A test therefore compares plain values on its own side, or gets False for a proxy, and the
    expected value never reaches the other side.
    """

    __slots__ = ("_channel", "_number")

    def __init__(self, channel: "Channel", number: int) -> None:
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the value on the other side."""
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
        raise TypeError("a proxy for a value in another process cannot be pickled")

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
    """One end of the connection between tester and candidate.

    Args:
        connection: socket to the other side.
        may_export: returns whether a value that cannot be sent by value may be exported to the other side.
        operations: the operations that the other side may request.
    """

    def __init__(
        self, connection: socket.socket, may_export: Callable[[Any], bool], operations: tuple[str, ...] = tuple(_OPERATIONS)
    ) -> None:
        self._connection, self._may_export, self._operations = connection, may_export, operations
        self._exported: list[Any] = []
        self._numbers: dict[int, int] = {}  # id of an exported value -> index into _exported
        self._proxies: dict[int, Proxy] = {}
        self._lock = threading.RLock()
        self._interrupted = False

    def export(self, value: Any) -> int:
        """Export a value and return the number by which the other side refers to it."""
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._exported)
            self._exported.append(value)
        return number

    def proxy(self, number: int) -> Proxy:
        """Return the proxy for the value that the other side exported under this number."""
        return self._proxies.setdefault(number, Proxy(self, number))

    def ask(self, operation: str, target: Proxy, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Request an operation and return its result, or raise the exception that the other side raised.

        Raises:
            ProtocolError: the other side has disconnected or violated the protocol.
            CannotCrossError: an argument cannot be sent.
        """
        with self._lock:
            encoder = Encoder(self._handle_of)
            try:
                request = b"C" + encoder.encode((operation, target, args, kwargs or {}))
            except CodecError as error:
                raise CannotCrossError(str(error)) from error
            self._send(request)
            while True:
                frame = self._receive()
                if frame[:1] != b"C":
                    return self._read_reply(frame, encoder.table)
                self.serve(frame)

    def serve(self, frame: bytearray | None = None) -> None:
        """Handle one request: `frame`, or the next frame that is received."""
        frame = self._receive() if frame is None else frame
        decoder, (operation, target, args, kwargs) = self._decode(frame)
        if frame[:1] != b"C" or operation not in self._operations or type(args) is not tuple or type(kwargs) is not dict:
            raise ProtocolError("received a message that is not a valid request")
        before = [contents(container) for container in decoder.table]
        try:
            letter, result = b"R", _OPERATIONS[operation](target, *args, **kwargs)
        except (ProtocolError, CannotCrossError):
            raise
        except BaseException as error:
            letter, result = b"X", describe(error)
        changed = self._changes(decoder.table, before)
        try:
            self._send(letter + Encoder(self._handle_of, decoder.table).encode((changed, result)))
        except CodecError as error:
            refusal = describe(ValueError(f"the result cannot be sent: {error}"))
            self._send(b"X" + Encoder(self._handle_of, decoder.table).encode(((), refusal)))

    def _changes(self, table: list[Any], before: list[Any]) -> tuple[Any, ...]:
        found = []
        for number, (container, old) in enumerate(zip(table, before, strict=True)):
            new = contents(container)
            if not _same(old, new):
                found.append((number, new))
        return tuple(found)

    def _read_reply(self, frame: bytes | bytearray, table: list[Any]) -> Any:
        _, (changes, result) = self._decode(frame, table)
        try:
            for number, new_contents in changes:
                refill(table[number], new_contents)
        except (TypeError, ValueError, IndexError, CodecError) as error:
            raise ProtocolError(f"a changed argument cannot be updated: {error}") from error
        if frame[:1] == b"R":
            return result
        if frame[:1] == b"X":
            raise rebuild(result)
        raise ProtocolError("received a message that is not a reply")

    def _decode(self, frame: bytes | bytearray, table: tuple[Any, ...] | list[Any] = ()) -> tuple[Decoder, tuple[Any, ...]]:
        decoder = Decoder(memoryview(frame)[1:], self._resolve, table)
        try:
            value = decoder.decode()
        except CodecError as error:
            raise ProtocolError(str(error)) from error
        if type(value) is not tuple or len(value) != (4 if frame[:1] == b"C" else 2):
            raise ProtocolError("received a malformed message")
        return decoder, value

    def _handle_of(self, value: Any) -> tuple[bytes, int]:
        if type(value) is Proxy:
            return b"H", object.__getattribute__(value, "_number")
        if not self._may_export(value):
            raise CodecError(f"a {type(value).__name__} cannot be sent to another process")
        return b"h", self.export(value)

    def _resolve(self, letter: bytes, number: int) -> Any:
        if letter == b"h":
            return self.proxy(number)
        if number >= len(self._exported):
            raise CodecError(f"no value is exported under number {number}")
        return self._exported[number]

    def _send(self, frame: bytes | bytearray) -> None:
        self._transfer(wire.send, self._connection, frame)

    def _receive(self) -> bytearray:
        return self._transfer(wire.receive, self._connection)

    def _transfer(self, transfer: Callable[..., Any], *arguments: Any) -> Any:
        """Send or receive a frame; after a signal handler has interrupted a transfer, the channel cannot be used any more."""
        if self._interrupted:
            raise ProtocolError("an earlier call was interrupted")
        self._interrupted = True
        try:
            result = transfer(*arguments)
        except wire.ConnectionLostError as error:
            raise ProtocolError(str(error)) from error
        self._interrupted = False
        return result


def _same(old: Any, new: Any) -> bool:
    """Return whether the old and new contents of a container are the same objects."""
    if isinstance(old, bytes):
        return old == new
    if len(old) != len(new):
        return False
    if old and type(old[0]) is tuple and len(old[0]) == 2:  # `contents` makes new tuples for the items of a mapping
        pairs = zip(old, new, strict=True)
        return all(a is b or (type(b) is tuple and len(b) == len(a) and all(map(operator.is_, a, b))) for a, b in pairs)
    return all(map(operator.is_, old, new))


def describe(error: BaseException) -> tuple[str, str, tuple[Any, ...], str]:
    """Return (type name, nearest builtin type's name, plain arguments, text) of an exception; code of it may run here."""
    kind = type(error)
    base = next(name for ancestor in kind.__mro__ for name, known in EXCEPTIONS.items() if ancestor is known)
    try:
        text = str(error)[:MAX_MESSAGE_CHARS]
    except BaseException:
        text = ""
    args = error.args if type(error.args) is tuple else ()
    plain = tuple(arg for arg in args if type(arg) in (str, int, float, bool, bytes, type(None)))
    short = len(plain) == len(args) and sum(len(arg) for arg in plain if isinstance(arg, (str, bytes))) < MAX_MESSAGE_CHARS
    name = type.__dict__["__name__"].__get__(kind)  # not kind.__name__, which a metaclass could fake
    return str(name)[:80], base, plain if short and args else (str(text),), str(text)


def rebuild(described: Any) -> BaseException:
    """Return an exception from its description: an instance of the builtin type, or of a new subclass of this type."""
    try:
        name, base_name, args, text = described
        base = EXCEPTIONS[base_name]
        kind = base if name == base_name else fresh_class(name, base)
        try:
            return kind(*args)
        except Exception:  # e.g. UnicodeDecodeError, which requires five arguments
            return fresh_class(name, Exception)(text)
    except Exception as error:
        raise ProtocolError(f"received a malformed exception: {error}") from error


def warm_up() -> None:
    """Exchange some messages within this process.

    The interpreter specializes bytecode that runs often. What is specialized here, before the forks, stays in memory pages that
    all forked processes share.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        caller, server = Channel(ours, callable), Channel(theirs, callable)
        target = caller.proxy(server.export(lambda *values: values))
        for _ in range(_WARM_ROUNDS):
            encoder = Encoder(caller._handle_of)
            values = ([1, 2, 3, 4, [5.0]], {"a": ("b", None, True)}, {1}, "text", 1.5, target)
            caller._send(b"C" + encoder.encode(("call", target, values, {})))
            server.serve()
            caller._read_reply(caller._receive(), encoder.table)
            exec(compile("def f(x): return [y for y in x]\nf([1])", "<program>", "exec"), {})
