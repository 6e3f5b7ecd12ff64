"""The life of the server: it listens when the model is ready, finishes what it has begun when it is told to end, and ends."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

from aiohttp import web

from wizardcoder_jax.core.errors import InputError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
KEEPALIVE_S = 75  # an idle connection
BACKLOG = 1024  # connections that wait to be taken


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the address and does not listen yet: that the address is taken is known before a model is loaded.

    Raises:
        InputError: the address cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
        return bound
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host} port {port} ({reason}); choose another --host or --port") from error


def address_of(bound: socket.socket) -> str:
    """The address for a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def run(application: web.Application, bound: socket.socket, drain: "Drain", announce: Callable[[], None]) -> None:
    """Serves until the drain is asked for or the engine fails, and then until what is in progress has ended."""
    settings = {"handler_cancellation": True, "auto_decompress": False, "keepalive_timeout": KEEPALIVE_S}
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, **settings)
    await runner.setup()
    try:
        await web.SockSite(runner, bound, backlog=BACKLOG).start()
        announce()
        await drain.wait()
    finally:
        await runner.cleanup()


class Drain:
    """The end of a server.

    Args:
        begin: nothing new is taken from now on.
        is_idle: nothing is in progress.
        has_failed: there is nothing to wait for.
        drain_s: how long to wait for what is in progress.
    """

    def __init__(self, begin: Callable[[], None], is_idle: asyncio.Event, has_failed: asyncio.Event, drain_s: float) -> None:
        self._begin, self._is_idle, self._has_failed, self._drain_s = begin, is_idle, has_failed, drain_s
        self._is_asked = asyncio.Event()

    def signalled(self, number: int) -> None:
        """The first signal asks for an end, the second ends the process."""
        if self._is_asked.is_set():
            os._exit(128 + number)
        self._begin()
        self._is_asked.set()
        sys.stderr.write(f"serve: finishing what is in progress, at most {self._drain_s:g} s; once more to end at once\n")

    async def wait(self) -> None:
        """Until all is over."""
        await _first_of(self._is_asked, self._has_failed)
        if self._is_idle.is_set():
            return
        try:
            async with asyncio.timeout(self._drain_s):
                await _first_of(self._is_idle, self._has_failed)
        except TimeoutError:
            sys.stderr.write(f"serve: not all answers were finished in {self._drain_s:g} s; they are cut off\n")


@contextlib.contextmanager
def heeding_signals(drain: Drain) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask for the drain, in the main thread's loop."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, drain.signalled, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _first_of(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
