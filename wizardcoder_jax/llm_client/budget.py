"""Hard limits on calls, money and tokens. A call reserves its maximum cost before it is made, so no limit is ever exceeded."""

import asyncio

from wizardcoder_jax.core.errors import StoppedEarlyError
from wizardcoder_jax.llm_client.ledger import Spending

NOTHING = Spending()


class Budget:
    """What is spent and what is reserved, for all callers of one event loop.

    Args:
        max_requests: answered calls of all runs together, None for no limit. Retries of a failed attempt do not count.
        max_usd: cost of these calls, None for no limit.
        max_tokens: tokens of their prompts and answers, None for no limit.
        spent: spending of earlier runs.
        flag_prefix: prefix of the limits' names on the command line, e.g. "--api.".
    """

    def __init__(
        self,
        *,
        max_requests: int | None,
        max_usd: float | None,
        max_tokens: int | None = None,
        spent: Spending = NOTHING,
        flag_prefix: str = "--",
    ) -> None:
        self._max_requests, self._max_usd, self._max_tokens = max_requests, max_usd, max_tokens
        self._flag_prefix = flag_prefix
        self._requests, self._usd, self._tokens = spent.requests, spent.usd, spent.tokens
        self._num_reserved, self._reserved_usd, self._reserved_tokens = 0, 0.0, 0
        self._settled = asyncio.Event()  # a reservation has ended since a caller began to wait

    async def reserve(self, usd: float, tokens: int = 0) -> None:
        """Reserve one call of at most `usd` and `tokens`. Waits while calls in flight may still release enough.

        Raises:
            StoppedEarlyError: the call would exceed a limit.
        """
        while (shortage := self._shortage(usd, tokens)) is not None:
            if self._num_reserved == 0:
                raise StoppedEarlyError(f"{shortage}; finished work is kept, and the same command with a larger limit resumes")
            self._settled.clear()
            await self._settled.wait()
        self._num_reserved += 1
        self._reserved_usd += usd
        self._reserved_tokens += tokens

    def settle(self, reserved_usd: float, *, requests: int, usd: float, reserved_tokens: int = 0, tokens: int = 0) -> None:
        """End a reservation: the call was answered (requests=1) and cost `usd` and `tokens`, or it failed (all 0)."""
        self._num_reserved -= 1
        # Rounding errors of floats do not add up: with nothing in flight, nothing is reserved.
        self._reserved_usd = self._reserved_usd - reserved_usd if self._num_reserved else 0.0
        self._reserved_tokens -= reserved_tokens
        self._requests += requests
        self._usd += usd
        self._tokens += tokens
        self._settled.set()

    def _shortage(self, usd: float, tokens: int) -> str | None:
        """Return which limit a call would exceed, or None."""
        prefix = self._flag_prefix
        if self._max_requests is not None and self._requests + self._num_reserved + 1 > self._max_requests:
            return f"{prefix}max-requests {self._max_requests} is reached ({self._requests} calls made)"
        if self._max_usd is not None and self._usd + self._reserved_usd + usd > self._max_usd:
            left = f"is too low for a further call of up to ${usd:.4f} (${self._usd:.4f} spent)"
            return f"{prefix}max-usd {self._max_usd:g} {left}"
        if self._max_tokens is not None and self._tokens + self._reserved_tokens + tokens > self._max_tokens:
            left = f"is too low for a further call of up to {tokens} tokens ({self._tokens} spent)"
            return f"{prefix}max-tokens {self._max_tokens} {left}"
        return None
