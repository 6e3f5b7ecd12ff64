"""The gate before a server: throttling and failures stop all callers, and one of them tries for all (circuit breaker)."""

import asyncio

FAILURES_TO_CLOSE = 3  # in a row, over all callers; fewer may be the fault of one request


class CircuitBreaker:
    """Open, closed or broken, for all callers of one event loop.

    The caller whose failure closes it goes on trying; the others wait until an answer comes, which opens it for all. Where
    the server said how long to wait, only the answer of the caller that waited opens it: those that were in flight before
    say nothing about it. Where that caller gives up, or any caller meets an error that no retry mends, the gate is broken:
    everyone gets that error.
    """

    def __init__(self) -> None:
        self._passable = asyncio.Event()  # to others than the one that tries
        self._passable.set()
        self._num_failures = 0  # since the last answer
        self._num_answers = 0
        self._trying: asyncio.Task[object] | None = None  # while the gate is closed
        self._is_throttled = False
        self._broken: Exception | None = None

    async def enter(self) -> None:
        """Waits while the gate is closed for this caller.

        Raises:
            Exception: that which broke the gate, as a new one of its kind.
        """
        while not self.is_open():
            await self._passable.wait()

    def is_open(self) -> bool:
        """Whether this caller may ask now.

        Raises:
            Exception: as `enter`.
        """
        if self._broken is not None:
            raise type(self._broken)(*self._broken.args)
        return self._trying is None or self._trying is asyncio.current_task()

    @property
    def num_answers(self) -> int:
        """The answers that all callers have got so far."""
        return self._num_answers

    def answered(self) -> None:
        """An answer came to this caller: opens the gate."""
        self._num_answers += 1
        self._num_failures = 0
        if self._trying is not None and not (self._is_throttled and self._trying is not asyncio.current_task()):
            self._trying = None
            self._passable.set()

    def failed(self, *, throttled: bool) -> None:
        """An attempt of this caller failed; `throttled`: the server said how long to wait, which holds for everyone."""
        self._num_failures += 1
        if self._trying is None and (throttled or self._num_failures >= FAILURES_TO_CLOSE):
            self._trying, self._is_throttled = asyncio.current_task(), throttled
            self._passable.clear()

    def break_with(self, error: Exception) -> None:
        """Ends all calls with `error`; the first error stays."""
        self._broken = self._broken or error
        self._passable.set()
