"""One call of the teacher on behalf of a record, and what it adds to the record's usage."""

from wizardcoder_jax.clients import calls
from wizardcoder_jax.clients.budget import Budget
from wizardcoder_jax.clients.completion import Completion
from wizardcoder_jax.clients.ledger import Ledger
from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.instructions.records import Usage
from wizardcoder_jax.instructions.teachers import Teacher


class Calls:
    """The only way to the teacher; may be used from several threads."""

    def __init__(self, *, teacher: Teacher, config: TeacherConfig, ledger: Ledger, budget: Budget) -> None:
        self._teacher = teacher
        self._decoding = [config.model, config.temperature, config.top_p, config.max_tokens]
        self._calls = calls.Calls(prices=config, max_answer_tokens=config.max_tokens, ledger=ledger, budget=budget)

    @property
    def num_new(self) -> int:
        """Calls that this process made; the others came from the ledger."""
        return self._calls.num_new

    def ask(self, prompt: str, *, purpose: str, record_id: str, round_: int) -> tuple[Completion, Usage]:
        """The teacher's answer to `prompt`, alone in a user message, and what it cost.

        Raises:
            InputError, StoppedEarlyError: as Teacher.complete, Budget.reserve and Ledger.put.
        """
        messages = [{"role": "user", "content": prompt}]
        completion, usd = self._calls.ask(
            lambda: self._teacher.complete(messages),
            identity=[self._teacher.identity, self._decoding],
            asked=messages,
            purpose=purpose,
            record_id=record_id,
            number=round_,
        )
        usage = Usage(
            prompt_tokens=completion.prompt_tokens or 0,
            completion_tokens=completion.completion_tokens or 0,
            num_calls=1,
            usd=usd,
        )
        return completion, usage
