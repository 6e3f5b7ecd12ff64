"""One call of the teacher: from the ledger if it was ever answered, else reserved, made, written down and only then used."""

import hashlib
import json
import threading
from collections.abc import Sequence

from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.instructions.budget import Budget
from wizardcoder_jax.instructions.ledger import Ledger
from wizardcoder_jax.instructions.records import Usage
from wizardcoder_jax.instructions.teachers import Completion, Message, Teacher

TOKENS_PER_MESSAGE = 16  # more than any chat template adds around one message


class Calls:
    """The only way to the teacher; may be used from several threads."""

    def __init__(self, *, teacher: Teacher, config: TeacherConfig, ledger: Ledger, budget: Budget) -> None:
        self._teacher, self._config, self._ledger, self._budget = teacher, config, ledger, budget
        self._lock = threading.Lock()
        self._num_new = 0

    @property
    def num_new(self) -> int:
        """Calls that this process made; the others came from the ledger."""
        return self._num_new

    def ask(self, prompt: str, *, purpose: str, record_id: str, round_: int) -> tuple[Completion, Usage]:
        """The teacher's answer to `prompt`, alone in a user message, and what it cost.

        Raises:
            InputError, StoppedEarlyError: as Teacher.complete, Budget.reserve and Ledger.put.
        """
        messages = [{"role": "user", "content": prompt}]
        key = self._key(messages, purpose, record_id, round_)
        known = self._ledger.get(key)
        if known is None:
            known = self._make(key, messages, purpose, record_id, round_)
        completion, usd = known
        usage = Usage(
            prompt_tokens=completion.prompt_tokens or 0,
            completion_tokens=completion.completion_tokens or 0,
            num_calls=1,
            usd=usd,
        )
        return completion, usage

    def _make(
        self, key: str, messages: Sequence[Message], purpose: str, record_id: str, round_: int
    ) -> tuple[Completion, float]:
        ceiling = self._ceiling_usd(messages)
        self._budget.reserve(ceiling)
        requests, usd = 0, 0.0
        try:
            completion = self._teacher.complete(messages)
            requests, usd = 1, self._cost_usd(completion, ceiling)
            self._ledger.put(
                key, purpose=purpose, record_id=record_id, round_=round_, messages=messages, completion=completion, usd=usd
            )
        finally:
            self._budget.settle(ceiling, requests=requests, usd=usd)
        with self._lock:
            self._num_new += 1
        return completion, usd

    def _key(self, messages: Sequence[Message], purpose: str, record_id: str, round_: int) -> str:
        config = self._config
        decoding = [config.model, config.temperature, config.top_p, config.max_tokens]
        content = [self._teacher.identity, decoding, [dict(m) for m in messages], purpose, record_id, round_]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _ceiling_usd(self, messages: Sequence[Message]) -> float:
        """The most a call can cost: no tokenizer makes more tokens than UTF-8 bytes."""
        num_bytes = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
        return self._price(num_bytes + TOKENS_PER_MESSAGE * len(messages), self._config.max_tokens)

    def _cost_usd(self, completion: Completion, ceiling: float) -> float:
        if completion.prompt_tokens is None or completion.completion_tokens is None:
            return ceiling  # the server did not say: count the worst
        return self._price(completion.prompt_tokens, completion.completion_tokens)

    def _price(self, prompt_tokens: int, completion_tokens: int) -> float:
        return self._config.cost_usd(prompt_tokens, completion_tokens)
