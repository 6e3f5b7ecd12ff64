"""The life cycle of the server: bind the address, serve when the model is ready, drain on a signal, and shut down."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator

from aiohttp import web

from wizardcoder_jax.core.errors import InputError

logger = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
KEEPALIVE_S = 75  # of an idle connection
BACKLOG = 1024  # connections that wait to be accepted


def bind_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address but does not listen yet, so that errors appear before a model is loaded.

    Raises:
        InputError: the address is in use, or cannot be bound for another reason.
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


def url_of(bound: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class GracefulShutdown:
    """The shutdown of a server, which first lets the requests in progress finish.

    Args:
        stop_admission: called once; no new requests are accepted afterwards.
        is_idle: set while no request is in progress.
        has_failed: set when requests in progress can no longer finish.
        drain_s: how long to wait for requests in progress.
    """

    def __init__(
        self, stop_admission: Callable[[], None], is_idle: asyncio.Event, has_failed: asyncio.Event, drain_s: float
    ) -> None:
        self._stop_admission, self._is_idle, self._has_failed = stop_admission, is_idle, has_failed
        self._drain_s = drain_s
        self._is_requested = asyncio.Event()

    def handle_signal(self, number: int) -> None:
        """Request the shutdown at the first signal, and end the process at the second."""
        if self._is_requested.is_set():
            os._exit(128 + number)
        self._stop_admission()
        self._is_requested.set()
        logger.info("serve: finishing requests in progress, at most %g s; signal once more to end at once", self._drain_s)

    async def wait(self) -> None:
        """Wait until the shutdown is requested and the requests in progress have finished, or the engine has failed."""
        await _wait_for_any(self._is_requested, self._has_failed)
        if self._is_idle.is_set():
            return
        try:
            async with asyncio.timeout(self._drain_s):
                await _wait_for_any(self._is_idle, self._has_failed)
        except TimeoutError:
            logger.warning("some answers did not finish within %g s and are cut off", self._drain_s)


async def serve_until_shutdown(
    application: web.Application, bound: socket.socket, shutdown: GracefulShutdown, announce: Callable[[], None]
) -> None:
    """Serve an application until the shutdown has completed.

    Args:
        application: the application.
        bound: the socket to listen on.
        shutdown: decides when to end.
        announce: called when the server is listening.
    """
    settings = {"handler_cancellation": True, "auto_decompress": False, "keepalive_timeout": KEEPALIVE_S}
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, **settings)
    await runner.setup()
    try:
        await web.SockSite(runner, bound, backlog=BACKLOG).start()
        announce()
        await shutdown.wait()
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def handle_signals(shutdown: GracefulShutdown) -> Iterator[None]:
    """Let SIGTERM and SIGINT request the shutdown, in the event loop of the main thread."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, shutdown.handle_signal, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _wait_for_any(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
