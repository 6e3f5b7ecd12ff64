"""An engine in a thread of its own, for the callers of an event loop, who come and go while it decodes."""

import asyncio
import contextlib
import dataclasses
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Hashable

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.inference.engine import Engine, News
from wizardcoder_jax.inference.request import Generation, GenerationRequest

MakeEngine = Callable[[], contextlib.AbstractContextManager[Engine]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Caller:
    """One who waits for an answer, and where it is told what is new."""

    request: GenerationRequest
    owner: Hashable
    heard: "asyncio.Queue[News | Exception]"
    loop: asyncio.AbstractEventLoop

    def tell(self, news: News | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self.heard.put_nowait, news)


class AsyncEngine:
    """Answers of one engine; what is asked while it decodes takes the slots that become free.

    Args:
        make_engine: makes the engine, in the thread that runs it, at the first request; the context lasts as long as it runs.
    """

    def __init__(self, make_engine: MakeEngine) -> None:
        self._make_engine = make_engine
        self._orders: queue.SimpleQueue[tuple[bool, _Caller] | None] = queue.SimpleQueue()  # (True: come, False: go, who)
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    async def answer(self, request: GenerationRequest) -> Generation:
        """The whole answer to one request.

        Raises:
            InputError: the request cannot be answered.
            Exception: that which ended the engine.
        """
        async for news in self.stream(request):
            if news.answer is not None:
                return news.answer
        raise AssertionError("a stream ends with its answer")

    @property
    def has_failed(self) -> bool:
        """Whether something has ended the engine: nobody is answered any more."""
        return self._failure is not None

    async def stream(self, request: GenerationRequest, owner: Hashable = None) -> AsyncGenerator[News, None]:
        """The answer as it is made; a caller that goes away gives its slot up.

        Args:
            request: what is wanted.
            owner: for whom; slots go to those who have fewest.

        Raises:
            InputError: the request cannot be answered; others are.
            Exception: that which ended the engine.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="engine")
            self._thread.start()
        caller = _Caller(request=request, owner=owner, heard=asyncio.Queue(), loop=asyncio.get_running_loop())
        self._orders.put((True, caller))
        if self._failure is not None:  # nobody takes orders any more
            raise self._failure
        news: News | Exception | None = None
        try:
            while True:
                news = await caller.heard.get()
                if isinstance(news, Exception):
                    raise news
                yield news
                if news.answer is not None:
                    return
        finally:
            if not isinstance(news, Exception) and (news is None or news.answer is None):
                self._orders.put((False, caller))

    async def aclose(self) -> None:
        """Ends the engine; answers in progress are given up."""
        self._orders.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        callers: dict[int, _Caller] = {}  # by ticket
        try:
            with self._make_engine() as engine:
                while self._obey(engine, callers):
                    for news in engine.advance():
                        caller = callers[news.ticket]
                        if news.answer is not None:
                            del callers[news.ticket]
                        caller.tell(news)
        except Exception as error:
            self._failure = error
            while not self._orders.empty():
                order = self._orders.get()
                if order is not None and order[0]:
                    order[1].tell(error)
            for caller in callers.values():
                caller.tell(error)

    def _obey(self, engine: Engine, callers: dict[int, _Caller]) -> bool:
        """Takes the orders that are there, waits for one where nothing is to be done; False: it is over."""
        while not (engine.is_busy and self._orders.empty()):
            order = self._orders.get()
            if order is None:
                return False
            is_new, caller = order
            if is_new:
                try:
                    callers[engine.submit(caller.request, caller.owner)] = caller
                except InputError as error:
                    caller.tell(error)
            else:
                for ticket in [ticket for ticket, held in callers.items() if held is caller]:
                    engine.cancel(ticket)
                    del callers[ticket]
        return True
