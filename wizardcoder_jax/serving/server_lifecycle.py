"""Life cycle of the server: bind the address, serve requests, drain on a signal, and shut down."""

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
KEEPALIVE_S = 75  # seconds until an idle connection is closed
BACKLOG = 1024  # maximum number of connections that wait to be accepted


def bind_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound but does not listen yet. This reports errors before the model is loaded.

    Raises:
        InputError: the address cannot be bound, e.g. because it is in use.
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
    """Shutdown that first lets the requests in progress finish.

    Args:
        stop_admission: function that makes the server reject new requests; called when the shutdown is requested.
        is_idle: event that is set while no request is in progress.
        has_failed: event that is set when the engine has failed, so that requests in progress cannot finish.
        drain_s: maximum number of seconds to wait for requests in progress.
    """

    def __init__(
        self, stop_admission: Callable[[], None], is_idle: asyncio.Event, has_failed: asyncio.Event, drain_s: float
    ) -> None:
        self._stop_admission, self._is_idle, self._has_failed = stop_admission, is_idle, has_failed
        self._drain_s = drain_s
        self._is_requested = asyncio.Event()

    def handle_signal(self, number: int) -> None:
        """Request the shutdown at the first signal; end the process at the second."""
        if self._is_requested.is_set():
            os._exit(128 + number)
        self._stop_admission()
        self._is_requested.set()
        logger.info("serve: finishing requests in progress for at most %g s; signal again to end immediately", self._drain_s)

    async def wait(self) -> None:
        """Wait until the shutdown has been requested and no request is in progress, or until the engine has failed."""
        await _wait_for_any(self._is_requested, self._has_failed)
        if self._is_idle.is_set():
            return
        try:
            async with asyncio.timeout(self._drain_s):
                await _wait_for_any(self._is_idle, self._has_failed)
        except TimeoutError:
            logger.warning("some answers did not finish within %g s and were cut off", self._drain_s)


async def serve_until_shutdown(
    application: web.Application, bound: socket.socket, shutdown: GracefulShutdown, announce: Callable[[], None]
) -> None:
    """Serve an application until the shutdown has completed.

    Args:
        application: the application.
        bound: socket to listen on.
        shutdown: shutdown to wait for.
        announce: function to call when the server is listening.
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
    """Context in which SIGTERM and SIGINT request the shutdown; it must be entered in the main thread's event loop."""
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
