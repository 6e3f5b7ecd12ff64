"""Calls to a paid model. A call that was answered before is answered from the ledger.

Any other call first reserves its maximum cost. Its answer is written to the ledger before it is used.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from wizardcoder_jax.config import ServerConfig
from wizardcoder_jax.llm_client.budget import Budget
from wizardcoder_jax.llm_client.completion import Completion, Message, max_prompt_tokens
from wizardcoder_jax.llm_client.ledger import Ledger, LedgerRow


class PaidAnswer(NamedTuple):
    """The answer to a paid call."""

    completion: Completion
    usd: float  # cost of the call
    call_id: str  # key of the call's row in the ledger


class PaidCalls:
    """The single access point to a paid model, shared by all callers on one event loop.

    Args:
        prices: the server's settings, which include its prices.
        num_in_flight: maximum number of concurrent calls.
        max_answer_tokens: maximum number of tokens in an answer.
        ledger: storage of the paid answers.
        budget: limits on what may be spent.
    """

    def __init__(
        self, *, prices: ServerConfig, num_in_flight: int, max_answer_tokens: int, ledger: Ledger, budget: Budget
    ) -> None:
        self._in_flight = asyncio.Semaphore(num_in_flight)
        self._prices, self._max_answer_tokens = prices, max_answer_tokens
        self._ledger, self._budget = ledger, budget
        self._num_new = 0

    @property
    def num_new(self) -> int:
        """Number of calls made by this process; all other answers came from the ledger."""
        return self._num_new

    async def ask(
        self,
        complete: Callable[[], Awaitable[Completion]],
        *,
        identity: Sequence[Any],
        messages: Sequence[Message] | str,
        purpose: str,
        record_id: str,
        number: int,
    ) -> PaidAnswer:
        """Return the answer to a call and its cost.

        Args:
            complete: coroutine function that makes the call.
            identity: JSON values that identify the model and its settings, without secrets.
            messages: the chat messages, or a plain prompt.
            purpose: what the call is for; together with `record_id` and `number`, it distinguishes calls with equal messages.
            record_id: id of the record or benchmark task that the call is for.
            number: number of the round, or index of the sample.

        Raises:
            InputError, StoppedEarlyError: see `complete`, Budget.reserve and Ledger.put.
        """
        prompt = messages if isinstance(messages, str) else [dict(message) for message in messages]
        content = json.dumps([*identity, prompt, purpose, record_id, number], sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        known = self._ledger.get(key)
        if known is not None:
            return PaidAnswer(*known, key)
        prompt_bound, answer_bound = max_prompt_tokens(prompt), self._max_answer_tokens
        max_tokens, max_usd = prompt_bound + answer_bound, self._prices.cost_usd(prompt_bound, answer_bound)
        await self._budget.reserve(max_usd, tokens=max_tokens)
        requests, usd, tokens = 0, 0.0, 0
        try:
            async with self._in_flight:
                self._ledger.check()
                completion = await complete()
            requests, tokens, usd = 1, max_tokens, max_usd  # upper bounds, used if the server reports no token counts
            if completion.prompt_tokens is not None and completion.completion_tokens is not None:
                tokens = completion.prompt_tokens + completion.completion_tokens
                usd = self._prices.cost_usd(completion.prompt_tokens, completion.completion_tokens)
            row = LedgerRow(
                key=key, purpose=purpose, record_id=record_id, number=number, messages=prompt, completion=completion, usd=usd
            )
            await self._ledger.put(row)
        finally:
            self._budget.settle(max_usd, requests=requests, usd=usd, reserved_tokens=max_tokens, tokens=tokens)
        self._num_new += 1
        return PaidAnswer(completion, usd, key)
