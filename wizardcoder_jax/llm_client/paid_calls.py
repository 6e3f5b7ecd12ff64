"""One paid call: from the ledger if it was ever answered, else reserved, made, written down and only then used."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from wizardcoder_jax.config import ServerConfig
from wizardcoder_jax.llm_client.budget import Budget
from wizardcoder_jax.llm_client.completion import Completion, Message, most_tokens
from wizardcoder_jax.llm_client.ledger import Ledger, LedgerRow


class PaidAnswer(NamedTuple):
    """What a call gave."""

    completion: Completion
    usd: float  # its cost
    call_id: str  # the key of its row in the ledger


class PaidCalls:
    """The only way to a paid model, for all callers of one event loop.

    Args:
        prices: the settings with the prices of the server.
        num_in_flight: calls at the same time, at most.
        max_answer_tokens: the most tokens an answer can have.
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
        """Calls that this process made; the others came from the ledger."""
        return self._num_new

    async def ask(
        self,
        complete: Callable[[], Awaitable[Completion]],
        *,
        identity: Sequence[Any],
        asked: Sequence[Message] | str,
        purpose: str,
        record_id: str,
        number: int,
    ) -> PaidAnswer:
        """The answer and its cost.

        Args:
            complete: makes the call.
            identity: the model and its settings, as JSON values without secrets.
            asked: the messages, or the bare prompt.
            purpose: what the call is for; with `record_id` and `number` it tells calls of equal content apart.
            record_id: the record or task it is made for.
            number: its round or sample index.

        Raises:
            InputError, StoppedEarlyError: as `complete`, Budget.reserve and Ledger.put.
        """
        prompt = asked if isinstance(asked, str) else [dict(message) for message in asked]
        content = json.dumps([*identity, prompt, purpose, record_id, number], sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        known = self._ledger.get(key)
        if known is not None:
            return PaidAnswer(*known, key)
        most_prompt, most_answer = most_tokens(prompt), self._max_answer_tokens
        most, most_usd = most_prompt + most_answer, self._prices.cost_usd(most_prompt, most_answer)
        await self._budget.reserve(most_usd, tokens=most)
        requests, usd, tokens = 0, 0.0, 0
        try:
            async with self._in_flight:
                self._ledger.check()
                completion = await complete()
            requests, tokens, usd = 1, most, most_usd  # what the server does not say is counted at its worst
            if completion.prompt_tokens is not None and completion.completion_tokens is not None:
                tokens = completion.prompt_tokens + completion.completion_tokens
                usd = self._prices.cost_usd(completion.prompt_tokens, completion.completion_tokens)
            row = LedgerRow(
                key=key, purpose=purpose, record_id=record_id, number=number, asked=prompt, completion=completion, usd=usd
            )
            await self._ledger.put(row)
        finally:
            self._budget.settle(most_usd, requests=requests, usd=usd, reserved_tokens=most, tokens=tokens)
        self._num_new += 1
        return PaidAnswer(completion, usd, key)
