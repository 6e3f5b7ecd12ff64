"""Client-side rate limits: requests and tokens per minute, over all callers of a client.

A provider counts what reaches it in windows whose start we do not know, so no window of 60 s may have more requests or tokens
than the limit. Requests are also spaced out rather than sent in a burst (generic cell rate algorithm, the leaky bucket of ITU-T
I.371). A call counts with its maximum number of tokens until its answer reports the actual number.
"""

import asyncio
import contextlib
import dataclasses
from collections import deque

WINDOW_S = 61.0  # a minute, plus the time that a request may take to reach the server
MIN_WAIT_S = 1e-3  # a clock may not resolve shorter times
BURST_S = 1.0  # delayed requests may catch up by as many requests as this time allows


@dataclasses.dataclass
class Ticket:
    """The permission for one request."""

    taken_s: float
    num_tokens: int


class RateLimiter:
    """Issues tickets to all callers of one event loop.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: tokens of prompts and answers, None for no limit.
    """

    def __init__(self, *, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self._max_requests, self._max_tokens = requests_per_minute, tokens_per_minute
        self._recent: deque[Ticket] = deque()  # of the last WINDOW_S
        self._num_tokens = 0  # of the recent tickets
        self._next_spaced_s = 0.0  # when the next request would be sent if all were spaced evenly
        self.lock = asyncio.Lock()  # callers wait for a ticket one after another, first come, first served
        self._settled = asyncio.Event()

    def delay_s(self, num_tokens: int) -> float:
        """Return how long a request of at most `num_tokens` has to wait, as far as is known now; 0 if it may be sent."""
        now = asyncio.get_running_loop().time()
        self._forget(now)
        delay_s = 0.0
        if self._max_requests is not None:
            interval_s = 60.0 / self._max_requests
            delay_s = self._next_spaced_s - max(0.0, BURST_S - interval_s) - now
            if len(self._recent) >= self._max_requests:
                delay_s = max(delay_s, self._recent[len(self._recent) - self._max_requests].taken_s + WINDOW_S - now)
        if self._max_tokens is not None:
            # A call that alone could exceed the limit waits until no other call counts.
            excess = self._num_tokens + min(num_tokens, self._max_tokens) - self._max_tokens
            for ticket in self._recent if excess > 0 else ():
                excess -= ticket.num_tokens
                if excess <= 0:
                    delay_s = max(delay_s, ticket.taken_s + WINDOW_S - now)
                    break
        return max(0.0, delay_s)

    async def wait(self, delay_s: float) -> None:
        """Wait for `delay_s` seconds, or until an answer has released tokens."""
        self._settled.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), max(delay_s, MIN_WAIT_S))

    def take(self, num_tokens: int) -> Ticket:
        """Return a ticket for a request that is sent now and has at most `num_tokens`."""
        now = asyncio.get_running_loop().time()
        ticket = Ticket(taken_s=now, num_tokens=num_tokens)
        if self._max_requests is not None or self._max_tokens is not None:
            self._recent.append(ticket)
            self._num_tokens += num_tokens
        if self._max_requests is not None:
            self._next_spaced_s = max(self._next_spaced_s, now) + 60.0 / self._max_requests
        return ticket

    def settle(self, ticket: Ticket, num_tokens: int | None) -> None:
        """Record that a request was answered and had `num_tokens`; None if the server does not report them."""
        now = asyncio.get_running_loop().time()
        self._forget(now)
        if num_tokens is None or not self._recent or ticket.taken_s < self._recent[0].taken_s:
            return
        self._num_tokens += num_tokens - ticket.num_tokens
        ticket.num_tokens = num_tokens
        self._settled.set()

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0].taken_s + WINDOW_S <= now:
            self._num_tokens -= self._recent.popleft().num_tokens
