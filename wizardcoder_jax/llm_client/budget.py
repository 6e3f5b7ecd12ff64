"""Hard limits on the number, cost and tokens of calls. A call reserves its maximum cost first, so no limit is ever exceeded."""

import asyncio

from wizardcoder_jax.core.errors import StoppedEarlyError
from wizardcoder_jax.llm_client.ledger import Spending

NOTHING = Spending()


class Budget:
    """Spent and reserved costs, shared by all callers on one event loop.

    Args:
        max_requests: maximum number of answered calls over all runs, None for no limit. Failed attempts do not count.
        max_usd: maximum cost of the answered calls in USD, None for no limit.
        max_tokens: maximum number of prompt and answer tokens of the answered calls, None for no limit.
        spent: spending of earlier runs.
        flag_prefix: prefix of the limits' command-line flags, for error messages, e.g. "--api.".
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
        self._settled = asyncio.Event()  # set when a reservation ends, cleared when a caller starts to wait

    async def reserve(self, usd: float, tokens: int = 0) -> None:
        """Reserve at most `usd` and `tokens` for one call, after waiting for calls in flight if a limit would be exceeded.

        Raises:
            StoppedEarlyError: the call would exceed a limit although no other call is in flight.
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
        """End the reservation of one call.

        Args:
            reserved_usd: cost that was reserved, in USD.
            requests: 1 if the call was answered, 0 if it failed.
            usd: actual cost in USD; 0 if the call failed.
            reserved_tokens: number of tokens that were reserved.
            tokens: actual number of tokens; 0 if the call failed.
        """
        self._num_reserved -= 1
        # With no call in flight, nothing is reserved: setting exactly 0 keeps rounding errors from accumulating.
        self._reserved_usd = self._reserved_usd - reserved_usd if self._num_reserved else 0.0
        self._reserved_tokens -= reserved_tokens
        self._requests += requests
        self._usd += usd
        self._tokens += tokens
        self._settled.set()

    def _shortage(self, usd: float, tokens: int) -> str | None:
        """Describe the limit that a call of `usd` and `tokens` would exceed; None if it exceeds no limit."""
        prefix = self._flag_prefix
        if self._max_requests is not None and self._requests + self._num_reserved + 1 > self._max_requests:
            return f"{prefix}max-requests {self._max_requests} is reached ({self._requests} calls made)"
        if self._max_usd is not None and self._usd + self._reserved_usd + usd > self._max_usd:
            left = f"is too low for another call of up to ${usd:.4f} (${self._usd:.4f} spent)"
            return f"{prefix}max-usd {self._max_usd:g} {left}"
        if self._max_tokens is not None and self._tokens + self._reserved_tokens + tokens > self._max_tokens:
            left = f"is too low for another call of up to {tokens} tokens ({self._tokens} spent)"
            return f"{prefix}max-tokens {self._max_tokens} {left}"
        return None
