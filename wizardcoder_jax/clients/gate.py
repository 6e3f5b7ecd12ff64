"""The gate before a server: rate limits and failures stop all callers, and one of them tries for all (circuit breaker)."""

import threading

FAILURES_TO_CLOSE = 3  # in a row, over all callers; fewer may be the fault of one request


class Gate:
    """Open, closed or broken; used from several threads.

    The caller whose failure closes it goes on trying; the others wait until an answer comes, which opens it for all. Where
    that caller gives up, or any caller meets an error that no retry mends, the gate is broken: everyone gets that error.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_failures = 0  # since the last answer
        self._num_answers = 0
        self._trying: int | None = None  # the thread that tries while the gate is closed
        self._broken: Exception | None = None

    def enter(self) -> None:
        """Waits while the gate is closed for this caller.

        Raises:
            Exception: that which broke the gate, as a new one of its kind.
        """
        with self._changed:
            while self._broken is None and self._trying not in (None, threading.get_ident()):
                self._changed.wait()
            if self._broken is not None:
                raise type(self._broken)(*self._broken.args)

    @property
    def num_answers(self) -> int:
        """The answers that all callers have got so far."""
        return self._num_answers

    def answered(self) -> None:
        """An answer came: opens the gate."""
        with self._changed:
            self._num_answers += 1
            self._num_failures, self._trying = 0, None
            self._changed.notify_all()

    def failed(self, *, throttled: bool) -> None:
        """An attempt of this caller failed; `throttled`: the server said how long to wait, which holds for everyone."""
        with self._changed:
            self._num_failures += 1
            if self._trying is None and (throttled or self._num_failures >= FAILURES_TO_CLOSE):
                self._trying = threading.get_ident()

    def break_with(self, error: Exception) -> None:
        """Ends all calls with `error`; the first error stays."""
        with self._changed:
            self._broken = self._broken or error
            self._changed.notify_all()
