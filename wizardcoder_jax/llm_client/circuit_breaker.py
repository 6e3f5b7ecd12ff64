"""A circuit breaker: while a server throttles or keeps failing, one caller probes it and all other callers wait."""

import asyncio

FAILURES_TO_OPEN = 3  # consecutive failures over all callers that open the breaker; fewer may be due to one bad request


class CircuitBreaker:
    """The state of one server: closed (requests may be sent), open (one caller probes the server) or failed.

    All callers on one event loop share the breaker. The caller whose failure opens it becomes the probing caller: it keeps
    retrying while all other callers wait. An answer to any caller closes the breaker again, unless the server asked for a
    pause. After a pause, only an answer to the probing caller counts, because the others sent their requests before the pause.
    If the probing caller gives up, or if any caller gets an error that no retry can fix, every caller gets that error.
    """

    def __init__(self) -> None:
        self._may_pass = asyncio.Event()  # set while all callers, not just the probing one, may send requests
        self._may_pass.set()
        self._num_failures = 0  # number of failures since the last answer
        self._num_answers = 0
        self._probing: asyncio.Task[object] | None = None  # the probing caller, while the breaker is open
        self._is_throttled = False
        self._error: Exception | None = None

    async def wait(self) -> None:
        """Wait until this caller may send a request.

        Raises:
            Exception: a copy of the error that was passed to `fail_all`.
        """
        while not self.allows_request():
            await self._may_pass.wait()

    def allows_request(self) -> bool:
        """Return whether this caller may send a request now.

        Raises:
            Exception: see `wait`.
        """
        if self._error is not None:
            raise type(self._error)(*self._error.args)
        return self._probing is None or self._probing is asyncio.current_task()

    @property
    def num_answers(self) -> int:
        """Number of answers that all callers together have received so far."""
        return self._num_answers

    def record_answer(self) -> None:
        """Record that this caller got an answer, which closes the breaker; after a pause, only the probing caller closes it."""
        self._num_answers += 1
        self._num_failures = 0
        if self._probing is not None and not (self._is_throttled and self._probing is not asyncio.current_task()):
            self._probing = None
            self._may_pass.set()

    def record_failure(self, *, throttled: bool) -> None:
        """Record a failed attempt of this caller, which may open the breaker.

        Args:
            throttled: whether the server asked for a pause, which opens the breaker at once.
        """
        self._num_failures += 1
        if self._probing is None and (throttled or self._num_failures >= FAILURES_TO_OPEN):
            self._probing, self._is_throttled = asyncio.current_task(), throttled
            self._may_pass.clear()

    def fail_all(self, error: Exception) -> None:
        """Make the calls of all callers fail with `error`. If this method is called again, the first error is kept."""
        self._error = self._error or error
        self._may_pass.set()
