"""Rate limits that are kept of one's own accord: requests and tokens a minute, over all callers of a client.

A provider counts what reaches it, so nothing may depend on where its minute begins: in no window of 60 s are there more
requests or tokens than the limit, and requests are spaced out instead of sent in one burst (generic cell rate algorithm, the
leaky bucket of ITU-T I.371). A call's tokens count at their worst until its answer says what they were.
"""

import asyncio
import contextlib
import dataclasses
from collections import deque

WINDOW_S = 61.0  # a minute, and a second more: that long may a request take to reach the server
LEAST_WAIT_S = 1e-3  # a clock may not tell less apart
BURST_S = 1.0  # requests that were held up may be caught up with, those of so many seconds


@dataclasses.dataclass
class Ticket:
    """The right to one request."""

    taken_s: float
    num_tokens: int


class RateLimiter:
    """Hands out tickets, for all callers of one event loop.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: of prompts and answers, None for no limit.
    """

    def __init__(self, *, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        self._max_requests, self._max_tokens = requests_per_minute, tokens_per_minute
        self._recent: deque[Ticket] = deque()  # of the last WINDOW_S
        self._num_tokens = 0  # of the recent ones
        self._spaced_s = 0.0  # when the next request would go, were all spaced evenly
        self.turn = asyncio.Lock()  # first come, first served
        self._settled = asyncio.Event()

    def delay_s(self, num_tokens: int) -> float:
        """How long a request of at most `num_tokens` has to wait, as far as is known now; 0 if it may go."""
        now = asyncio.get_running_loop().time()
        self._forget(now)
        delay_s = 0.0
        if self._max_requests is not None:
            interval_s = 60.0 / self._max_requests
            delay_s = self._spaced_s - max(0.0, BURST_S - interval_s) - now
            if len(self._recent) >= self._max_requests:
                delay_s = max(delay_s, self._recent[len(self._recent) - self._max_requests].taken_s + WINDOW_S - now)
        if self._max_tokens is not None:
            # A call that could exceed the limit by itself waits until it is alone.
            excess = self._num_tokens + min(num_tokens, self._max_tokens) - self._max_tokens
            for ticket in self._recent if excess > 0 else ():
                excess -= ticket.num_tokens
                if excess <= 0:
                    delay_s = max(delay_s, ticket.taken_s + WINDOW_S - now)
                    break
        return max(0.0, delay_s)

    async def wait(self, delay_s: float) -> None:
        """Waits so long, or until an answer has made room."""
        self._settled.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), max(delay_s, LEAST_WAIT_S))

    def take(self, num_tokens: int) -> Ticket:
        """A ticket, for a request that goes now and has at most `num_tokens`."""
        now = asyncio.get_running_loop().time()
        ticket = Ticket(taken_s=now, num_tokens=num_tokens)
        if self._max_requests is not None or self._max_tokens is not None:
            self._recent.append(ticket)
            self._num_tokens += num_tokens
        if self._max_requests is not None:
            self._spaced_s = max(self._spaced_s, now) + 60.0 / self._max_requests
        return ticket

    def settle(self, ticket: Ticket, num_tokens: int | None) -> None:
        """The request was answered and had so many tokens; None where the server does not say."""
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
