"""Hard limits on calls and money: a call reserves its greatest cost before it is made, so concurrency cannot overshoot."""

import threading

from wizardcoder_jax.errors import StoppedEarlyError


class Budget:
    """Counts what is spent and what is reserved; may be used from several threads.

    Args:
        max_requests: answered calls of all runs together, None for no limit. Retries of a failed attempt are not counted.
        max_usd: their cost, None for no limit.
        spent_requests: calls of earlier runs.
        spent_usd: their cost.
    """

    def __init__(self, *, max_requests: int | None, max_usd: float | None, spent_requests: int, spent_usd: float) -> None:
        self._max_requests, self._max_usd = max_requests, max_usd
        self._requests, self._usd = spent_requests, spent_usd
        self._num_reserved, self._reserved_usd = 0, 0.0
        self._changed = threading.Condition()

    def reserve(self, usd: float) -> None:
        """Sets one call of at most `usd` aside; waits while only calls in flight stand in its way.

        Raises:
            StoppedEarlyError: there is no room for it.
        """
        with self._changed:
            while (shortage := self._shortage(usd)) is not None:
                if self._num_reserved == 0:
                    raise StoppedEarlyError(f"{shortage}; what is done is kept, the same command with a larger limit resumes")
                self._changed.wait()
            self._num_reserved += 1
            self._reserved_usd += usd

    def settle(self, reserved_usd: float, *, requests: int, usd: float) -> None:
        """Ends a reservation: the call was answered (requests=1) and cost `usd`, or it failed (0 and 0.0)."""
        with self._changed:
            self._num_reserved -= 1
            # Differences of floats leave dust; with nothing in flight nothing is reserved.
            self._reserved_usd = self._reserved_usd - reserved_usd if self._num_reserved else 0.0
            self._requests += requests
            self._usd += usd
            self._changed.notify_all()

    def _shortage(self, usd: float) -> str | None:
        if self._max_requests is not None and self._requests + self._num_reserved + 1 > self._max_requests:
            return f"--max-requests {self._max_requests} is reached ({self._requests} calls made)"
        if self._max_usd is not None and self._usd + self._reserved_usd + usd > self._max_usd:
            return f"--max-usd {self._max_usd:g} leaves no room for a call of up to ${usd:.4f} (${self._usd:.4f} spent)"
        return None
