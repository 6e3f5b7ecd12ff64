"""Calls to the teacher model, which go through the ledger and the budget. Each record counts the cost of its calls."""

import functools
from collections.abc import Sequence
from typing import Protocol

from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.core.errors import RefusedPromptError
from wizardcoder_jax.evol_instruct.records import Usage
from wizardcoder_jax.evol_instruct.teachers import Teacher
from wizardcoder_jax.llm_client import paid_calls
from wizardcoder_jax.llm_client.budget import Budget
from wizardcoder_jax.llm_client.completion import Completion, Message
from wizardcoder_jax.llm_client.ledger import Ledger
from wizardcoder_jax.llm_client.paid_calls import PaidAnswer


class CallTeacher(Protocol):
    """A function that calls the teacher model for one record in one round, such as `TeacherCalls.ask`."""

    async def __call__(self, prompt: str, *, purpose: str, record_id: str, round_: int) -> PaidAnswer:
        """Return the teacher's answer to `prompt` and its cost."""
        ...


class TeacherCalls:
    """The single access point to the teacher model, shared by all records on one event loop."""

    def __init__(self, *, teacher: Teacher, config: TeacherConfig, ledger: Ledger, budget: Budget, run_seed: int) -> None:
        self._teacher, self._run_seed, self._model = teacher, run_seed, config.model
        self._decoding = [config.model, config.temperature, config.top_p, config.max_tokens]
        self._calls = paid_calls.PaidCalls(
            prices=config, num_in_flight=config.num_in_flight, max_answer_tokens=config.max_tokens, ledger=ledger, budget=budget
        )

    @property
    def num_new(self) -> int:
        """Number of calls made by this process; all other answers came from the ledger."""
        return self._calls.num_new

    async def ask(self, prompt: str, *, purpose: str, record_id: str, round_: int) -> PaidAnswer:
        """Send `prompt` as the only user message, and return the teacher's answer and its cost.

        Raises:
            InputError, StoppedEarlyError: see Teacher.complete, Budget.reserve and Ledger.put.
        """
        messages = [{"role": "user", "content": prompt}]
        return await self._calls.ask(
            functools.partial(self._complete, messages, f"{self._run_seed}/{record_id}/{round_}/{purpose}"),
            identity=[self._teacher.identity, self._decoding],
            messages=messages,
            purpose=purpose,
            record_id=record_id,
            number=round_,
        )

    async def _complete(self, messages: Sequence[Message], draw: str) -> Completion:
        try:
            return await self._teacher.complete(messages, draw)
        except RefusedPromptError as error:  # return an empty answer, so that the rules reject only this record
            reason = error.finish_reason
            return Completion(text="", finish_reason=reason, prompt_tokens=0, completion_tokens=0, model=self._model)


class RecordCalls:
    """Calls the teacher model for one record in one round, and adds up the usage; an implementation of judges.AskTeacher."""

    def __init__(self, call_teacher: CallTeacher, record_id: str, round_: int) -> None:
        self._call_teacher, self._record_id, self._round = call_teacher, record_id, round_
        self.usage = Usage()
        self.call_ids: tuple[str, ...] = ()

    async def __call__(self, prompt: str, purpose: str) -> Completion:
        """Return the teacher's answer, and add its tokens and cost to `usage`."""
        answer = await self._call_teacher(prompt, purpose=purpose, record_id=self._record_id, round_=self._round)
        completion = answer.completion
        self.usage += Usage(
            prompt_tokens=completion.prompt_tokens or 0,
            completion_tokens=completion.completion_tokens or 0,
            num_calls=1,
            usd=answer.usd,
        )
        self.call_ids += (answer.call_id,)
        return completion
