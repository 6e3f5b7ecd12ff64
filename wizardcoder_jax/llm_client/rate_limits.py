"""Client-side rate limits: requests and tokens per minute, over all callers of a client.

A server counts requests and tokens in windows whose start the client does not know, so no window of 60 s may contain more than
the limit. Requests are also spaced out rather than sent in a burst (generic cell rate algorithm, the leaky bucket of ITU-T
I.371). A call counts with its maximum number of tokens until its answer reports the actual number.
"""

import asyncio
import contextlib
import dataclasses
from collections import deque

WINDOW_S = 61.0  # length of the window: a minute, plus the time that a request may take to reach the server
MIN_WAIT_S = 1e-3  # shortest wait, because a clock may not resolve shorter times
BURST_S = 1.0  # seconds by which a request may precede its evenly spaced time, so that delayed requests can catch up


@dataclasses.dataclass
class Ticket:
    """The permission to send one request."""

    taken_s: float  # time of issue on the event loop's clock
    num_tokens: int  # maximum number of tokens of the call; the actual number once it is answered


class RateLimiter:
    """A rate limiter that issues tickets, i.e. permissions to send a request, to all callers on one event loop.

    Args:
        requests_per_minute: maximum number of requests per minute, None for no limit.
        tokens_per_minute: maximum number of prompt and answer tokens per minute, None for no limit.
    """

    def __init__(self, *, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self._max_requests, self._max_tokens = requests_per_minute, tokens_per_minute
        self._recent: deque[Ticket] = deque()  # tickets issued in the last WINDOW_S seconds
        self._num_tokens = 0  # total number of tokens of the recent tickets
        self._next_spaced_s = 0.0  # time at which the next request would be sent with even spacing
        self.lock = asyncio.Lock()  # callers wait for a ticket one after another, first come, first served
        self._settled = asyncio.Event()

    def delay_s(self, num_tokens: int) -> float:
        """Return the seconds that a request of at most `num_tokens` has to wait, or 0 if it may be sent now.

        An answer that arrives in the meantime may shorten the wait.
        """
        now = asyncio.get_running_loop().time()
        self._forget(now)
        delay_s = 0.0
        if self._max_requests is not None:
            interval_s = 60.0 / self._max_requests
            delay_s = self._next_spaced_s - max(0.0, BURST_S - interval_s) - now
            if len(self._recent) >= self._max_requests:
                delay_s = max(delay_s, self._recent[len(self._recent) - self._max_requests].taken_s + WINDOW_S - now)
        if self._max_tokens is not None:
            # A call that could exceed the limit on its own waits until the window contains no other call.
            excess = self._num_tokens + min(num_tokens, self._max_tokens) - self._max_tokens
            for ticket in self._recent if excess > 0 else ():
                excess -= ticket.num_tokens
                if excess <= 0:
                    delay_s = max(delay_s, ticket.taken_s + WINDOW_S - now)
                    break
        return max(0.0, delay_s)

    async def wait(self, delay_s: float) -> None:
        """Wait for `delay_s` seconds, or until an answer reports its actual number of tokens."""
        self._settled.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), max(delay_s, MIN_WAIT_S))

    def take(self, num_tokens: int) -> Ticket:
        """Return a ticket for a request that is sent now and uses at most `num_tokens`."""
        now = asyncio.get_running_loop().time()
        ticket = Ticket(taken_s=now, num_tokens=num_tokens)
        if self._max_requests is not None or self._max_tokens is not None:
            self._recent.append(ticket)
            self._num_tokens += num_tokens
        if self._max_requests is not None:
            self._next_spaced_s = max(self._next_spaced_s, now) + 60.0 / self._max_requests
        return ticket

    def settle(self, ticket: Ticket, num_tokens: int | None) -> None:
        """Record that the request of a ticket was answered.

        Args:
            ticket: the ticket of the request.
            num_tokens: actual number of tokens in the prompt and the answer; None if the server does not report it.
        """
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
