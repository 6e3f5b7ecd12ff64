"""A circuit breaker: when a server throttles or keeps failing, all callers wait while one of them probes it."""

import asyncio

FAILURES_TO_OPEN = 3  # consecutive failures over all callers; fewer may be due to a single request


class CircuitBreaker:
    """The state of one server for all callers of one event loop: closed (requests pass), open (one caller probes) or failed.

    The caller whose failure opens the breaker keeps trying, while the others wait. Any answer closes it again, unless the
    server asked for a pause: then only an answer to the probing caller does, because the others sent their requests before the
    pause.
    If the probing caller gives up, or if any caller meets an error that no retry can fix, every caller gets that error.
    """

    def __init__(self) -> None:
        self._may_pass = asyncio.Event()  # for callers other than the probing one
        self._may_pass.set()
        self._num_failures = 0  # since the last answer
        self._num_answers = 0
        self._probing: asyncio.Task[object] | None = None  # the probing caller, while the breaker is open
        self._is_throttled = False
        self._error: Exception | None = None

    async def wait(self) -> None:
        """Wait while this caller may not send a request.

        Raises:
            Exception: a copy of the error that failed the breaker.
        """
        while not self.allows_request():
            await self._may_pass.wait()

    def allows_request(self) -> bool:
        """Return whether this caller may send a request now.

        Raises:
            Exception: as `wait`.
        """
        if self._error is not None:
            raise type(self._error)(*self._error.args)
        return self._probing is None or self._probing is asyncio.current_task()

    @property
    def num_answers(self) -> int:
        """Answers that all callers have received so far."""
        return self._num_answers

    def record_answer(self) -> None:
        """Record that this caller got an answer, which closes the breaker."""
        self._num_answers += 1
        self._num_failures = 0
        if self._probing is not None and not (self._is_throttled and self._probing is not asyncio.current_task()):
            self._probing = None
            self._may_pass.set()

    def record_failure(self, *, throttled: bool) -> None:
        """Record that an attempt of this caller failed; `throttled` if the server asked everyone to wait."""
        self._num_failures += 1
        if self._probing is None and (throttled or self._num_failures >= FAILURES_TO_OPEN):
            self._probing, self._is_throttled = asyncio.current_task(), throttled
            self._may_pass.clear()

    def fail_all(self, error: Exception) -> None:
        """End the calls of all callers with `error`. A later error does not replace it."""
        self._error = self._error or error
        self._may_pass.set()
