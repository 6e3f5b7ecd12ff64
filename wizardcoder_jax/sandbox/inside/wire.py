"""Frames over a stream socket: eight bytes that give the length, then the data."""

import json
import socket
import struct
from typing import Any

MAX_FRAME_BYTES = 256 << 20
_LENGTH = struct.Struct("<Q")


class ConnectionLostError(Exception):
    """The other side closed the connection, or sent a frame that is too long."""


def send(connection: socket.socket, data: bytes | bytearray) -> None:
    """Send one frame.

    Raises:
        ConnectionLostError: the other side no longer reads.
    """
    try:
        if len(data) < 1 << 16:
            connection.sendall(_LENGTH.pack(len(data)) + data)
        else:
            connection.sendall(_LENGTH.pack(len(data)))
            connection.sendall(data)
    except (BrokenPipeError, ConnectionError) as error:
        raise ConnectionLostError(str(error)) from error


def receive(connection: socket.socket) -> bytearray:
    """Receive exactly one frame.

    Raises:
        ConnectionLostError: the connection was closed, or the frame is too long.
    """
    (size,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if size > MAX_FRAME_BYTES:
        raise ConnectionLostError(f"received a frame of {size} bytes; the limit is {MAX_FRAME_BYTES}")
    return _exactly(connection, size)


def send_json(connection: socket.socket, value: Any) -> None:
    """Send one frame of JSON."""
    send(connection, json.dumps(value).encode())


def receive_json(connection: socket.socket) -> Any:
    """Receive one frame of JSON."""
    return json.loads(receive(connection))


def _exactly(connection: socket.socket, num_bytes: int) -> bytearray:
    received, filled = bytearray(num_bytes), 0
    view = memoryview(received)
    while filled < num_bytes:
        try:
            size = connection.recv_into(view[filled:], min(num_bytes - filled, 1 << 20))
        except ConnectionError as error:
            raise ConnectionLostError(str(error)) from error
        if not size:
            raise ConnectionLostError("the connection was closed")
        filled += size
    return received
