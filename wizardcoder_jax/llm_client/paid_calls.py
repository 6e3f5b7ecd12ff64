"""One paid call: from the ledger if it was answered before; else reserved, made, recorded and only then used."""

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
    call_id: str  # key of its row in the ledger


class PaidCalls:
    """The only access to a paid model, for all callers of one event loop.

    Args:
        prices: the server's settings, with its prices.
        num_in_flight: maximum number of concurrent calls.
        max_answer_tokens: maximum length of an answer.
        ledger: the answers so far.
        budget: what may still be spent.
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
        """Calls that this process made; all others were answered from the ledger."""
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
            complete: makes the call.
            identity: the model and its settings, as JSON values without secrets.
            messages: the messages, or the bare prompt.
            purpose: what the call is for; with `record_id` and `number` it distinguishes calls of equal content.
            record_id: the record or task of the call.
            number: its round or sample index.

        Raises:
            InputError, StoppedEarlyError: as `complete`, Budget.reserve and Ledger.put.
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
            requests, tokens, usd = 1, max_tokens, max_usd  # counts that the server does not report are taken at their maximum
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
