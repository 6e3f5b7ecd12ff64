"""Asynchronous engine: it runs in a separate thread, and coroutines submit and cancel requests while it decodes."""

import asyncio
import contextlib
import dataclasses
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Hashable

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.inference.engine import Engine, RequestUpdate
from wizardcoder_jax.inference.request import Generation, GenerationRequest

EngineFactory = Callable[[], contextlib.AbstractContextManager[Engine]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Subscriber:
    """A coroutine that waits for an answer, and the queue from which it reads updates."""

    request: GenerationRequest
    owner: Hashable
    updates: "asyncio.Queue[RequestUpdate | Exception]"
    loop: asyncio.AbstractEventLoop

    def notify(self, update: RequestUpdate | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # raised if the event loop has been closed
            self.loop.call_soon_threadsafe(self.updates.put_nowait, update)


class AsyncEngine:
    """Engine that generates answers for concurrent coroutines. Requests take slots as they become free.

    Args:
        make_engine: returns a context manager that creates the engine. The engine thread enters it at the first request.
    """

    def __init__(self, make_engine: EngineFactory) -> None:
        self._make_engine = make_engine
        # (True to submit or False to cancel, subscriber), or None to end the thread
        self._commands: queue.SimpleQueue[tuple[bool, _Subscriber] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    async def generate(self, request: GenerationRequest) -> Generation:
        """Return the complete answer to one request.

        Raises:
            InputError: the request is invalid.
            Exception: the error that ended the engine.
        """
        async for update in self.stream(request):
            if update.generation is not None:
                return update.generation
        raise AssertionError("a stream ends with its generation")

    @property
    def has_failed(self) -> bool:
        """Whether an error has ended the engine. It accepts no more requests then."""
        return self._failure is not None

    async def stream(self, request: GenerationRequest, owner: Hashable = None) -> AsyncGenerator[RequestUpdate, None]:
        """Yield the progress of one request. Closing the generator early cancels the request.

        Args:
            request: the request.
            owner: client that the request belongs to. A free slot goes to the owner that uses the fewest slots.

        Raises:
            InputError: the request is invalid; other requests are not affected.
            Exception: the error that ended the engine.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="engine")
            self._thread.start()
        subscriber = _Subscriber(request=request, owner=owner, updates=asyncio.Queue(), loop=asyncio.get_running_loop())
        self._commands.put((True, subscriber))
        if self._failure is not None:  # the thread has ended and reads no more commands
            raise self._failure
        update: RequestUpdate | Exception | None = None
        try:
            while True:
                update = await subscriber.updates.get()
                if isinstance(update, Exception):
                    raise update
                yield update
                if update.generation is not None:
                    return
        finally:
            if not isinstance(update, Exception) and (update is None or update.generation is None):
                self._commands.put((False, subscriber))

    async def aclose(self) -> None:
        """End the engine and abandon unfinished answers."""
        self._commands.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        subscribers: dict[int, _Subscriber] = {}  # by request id
        try:
            with self._make_engine() as engine:
                while self._process_commands(engine, subscribers):
                    for update in engine.step():
                        subscriber = subscribers[update.request_id]
                        if update.generation is not None:
                            del subscribers[update.request_id]
                        subscriber.notify(update)
        except Exception as error:
            self._failure = error
            while not self._commands.empty():
                command = self._commands.get()
                if command is not None and command[0]:
                    command[1].notify(error)
            for subscriber in subscribers.values():
                subscriber.notify(error)

    def _process_commands(self, engine: Engine, subscribers: dict[int, _Subscriber]) -> bool:
        """Process queued commands, and wait for one while the engine is idle. Return False when the engine should end."""
        while not (engine.is_busy and self._commands.empty()):
            command = self._commands.get()
            if command is None:
                return False
            is_new, subscriber = command
            if is_new:
                try:
                    subscribers[engine.submit(subscriber.request, subscriber.owner)] = subscriber
                except InputError as error:
                    subscriber.notify(error)
            else:
                for request_id in [request_id for request_id, found in subscribers.items() if found is subscriber]:
                    engine.cancel(request_id)
                    del subscribers[request_id]
        return True
