"""Hard limits on calls, money and tokens: a call reserves its greatest cost before it is made, so none can be overshot."""

import asyncio

from wizardcoder_jax.core.errors import StoppedEarlyError
from wizardcoder_jax.llm_client.ledger import Spent

NOTHING = Spent()


class Budget:
    """Counts what is spent and what is reserved, for all callers of one event loop.

    Args:
        max_requests: answered calls of all runs together, None for no limit. Retries of a failed attempt are not counted.
        max_usd: their cost, None for no limit.
        max_tokens: tokens of their prompts and answers, None for no limit.
        spent: by earlier runs.
        flags: what the names of the limits begin with on the command line, e.g. "--api.".
    """

    def __init__(
        self,
        *,
        max_requests: int | None,
        max_usd: float | None,
        max_tokens: int | None = None,
        spent: Spent = NOTHING,
        flags: str = "--",
    ) -> None:
        self._max_requests, self._max_usd, self._max_tokens, self._flags = max_requests, max_usd, max_tokens, flags
        self._requests, self._usd, self._tokens = spent.requests, spent.usd, spent.tokens
        self._num_reserved, self._reserved_usd, self._reserved_tokens = 0, 0.0, 0
        self._settled = asyncio.Event()  # since a caller began to wait

    async def reserve(self, usd: float, tokens: int = 0) -> None:
        """Sets one call of at most `usd` and `tokens` aside; waits while only calls in flight stand in its way.

        Raises:
            StoppedEarlyError: there is no room for it.
        """
        while (shortage := self._shortage(usd, tokens)) is not None:
            if self._num_reserved == 0:
                raise StoppedEarlyError(f"{shortage}; what is done is kept, the same command with a larger limit resumes")
            self._settled.clear()
            await self._settled.wait()
        self._num_reserved += 1
        self._reserved_usd += usd
        self._reserved_tokens += tokens

    def settle(self, reserved_usd: float, *, requests: int, usd: float, reserved_tokens: int = 0, tokens: int = 0) -> None:
        """Ends a reservation: the call was answered (requests=1) and cost `usd` and `tokens`, or it failed (all 0)."""
        self._num_reserved -= 1
        # Differences of floats leave dust; with nothing in flight nothing is reserved.
        self._reserved_usd = self._reserved_usd - reserved_usd if self._num_reserved else 0.0
        self._reserved_tokens -= reserved_tokens
        self._requests += requests
        self._usd += usd
        self._tokens += tokens
        self._settled.set()

    def _shortage(self, usd: float, tokens: int) -> str | None:
        if self._max_requests is not None and self._requests + self._num_reserved + 1 > self._max_requests:
            return f"{self._flags}max-requests {self._max_requests} is reached ({self._requests} calls made)"
        if self._max_usd is not None and self._usd + self._reserved_usd + usd > self._max_usd:
            left = f"leaves no room for a call of up to ${usd:.4f} (${self._usd:.4f} spent)"
            return f"{self._flags}max-usd {self._max_usd:g} {left}"
        if self._max_tokens is not None and self._tokens + self._reserved_tokens + tokens > self._max_tokens:
            left = f"leaves no room for a call of up to {tokens} ({self._tokens} spent)"
            return f"{self._flags}max-tokens {self._max_tokens} {left}"
        return None
