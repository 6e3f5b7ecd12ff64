import asyncio
import sqlite3

import pytest

from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evol_instruct.teacher_calls import TeacherCalls
from wizardcoder_jax.llm_client.budget import Budget
from wizardcoder_jax.llm_client.completion import Completion
from wizardcoder_jax.llm_client.ledger import Ledger, Spending

PRICED = TeacherConfig(usd_per_million_prompt_tokens=1.0, usd_per_million_completion_tokens=2.0, max_tokens=100)


class CountingTeacher:
    identity = "counting"

    def __init__(self, prompt_tokens=10):
        self.num_calls, self.prompt_tokens = 0, prompt_tokens

    async def complete(self, messages, draw):
        self.num_calls += 1
        return Completion(
            text=f"answer {self.num_calls} \ud800\0",
            finish_reason="stop",
            prompt_tokens=self.prompt_tokens,
            completion_tokens=20,
            model="m",
        )


def asked(path, teacher, *prompts, config=PRICED, record_id="seed-1", round_=1, purpose="answer"):
    async def ask_all(ask):
        return [await ask(prompt, purpose=purpose, record_id=record_id, round_=round_) for prompt in prompts]

    free = Budget(max_requests=None, max_usd=None)
    with Ledger(path) as ledger:
        calls = TeacherCalls(teacher=teacher, config=config, ledger=ledger, budget=free, run_seed=0)
        return asyncio.run(ask_all(calls.ask))


def test_an_answer_is_paid_for_once_and_replayed_unchanged(tmp_path):
    teacher, path = CountingTeacher(), tmp_path / "ledger.sqlite"
    first = asked(path, teacher, "p", "q")
    assert asked(path, teacher, "p", "q") == first
    assert teacher.num_calls == 2


def test_cost_is_computed_from_the_tokens_and_added_to_the_totals(tmp_path):
    path = tmp_path / "ledger.sqlite"
    (answer,) = asked(path, CountingTeacher(), "p")
    assert answer.usd == pytest.approx((10 * 1.0 + 20 * 2.0) / 1e6)
    with Ledger(path) as ledger:
        assert ledger.totals() == Spending(requests=1, usd=answer.usd, tokens=30)


def test_tokens_that_the_server_does_not_report_are_counted_at_their_maximum(tmp_path):
    (answer,) = asked(tmp_path / "ledger.sqlite", CountingTeacher(prompt_tokens=None), "p" * 1000)
    assert answer.usd >= (1000 * 1.0 + 100 * 2.0) / 1e6


@pytest.mark.parametrize(
    "other",
    [
        {"record_id": "seed-2"},
        {"round_": 2},
        {"purpose": "judge"},
        {"config": TeacherConfig(model="another")},
        {"config": TeacherConfig(temperature=0.5)},
    ],
)
def test_the_same_prompt_for_another_purpose_is_another_call(tmp_path, other):
    teacher, path = CountingTeacher(), tmp_path / "ledger.sqlite"
    asked(path, teacher, "p")
    asked(path, teacher, "p", **other)
    assert teacher.num_calls == 2


def test_the_call_id_of_an_answer_is_the_key_of_its_row(tmp_path):
    first, second = asked(tmp_path / "ledger.sqlite", CountingTeacher(), "p", "q")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.get(first.call_id) == (first.completion, first.usd)
    assert first.call_id != second.call_id


def test_a_row_is_durable_before_the_answer_is_used(tmp_path):
    path = tmp_path / "ledger.sqlite"
    num_rows = []

    async def ask(calls, prompt):
        await calls.ask(prompt, purpose="answer", record_id="seed-1", round_=1)
        other = sqlite3.connect(path)
        num_rows.append(other.execute("SELECT COUNT(*) FROM calls").fetchone()[0])
        other.close()

    async def ask_together(calls):
        await asyncio.gather(*(ask(calls, f"p{i}") for i in range(10)))

    with Ledger(path) as ledger:
        free = Budget(max_requests=None, max_usd=None)
        asyncio.run(
            ask_together(TeacherCalls(teacher=CountingTeacher(), config=PRICED, ledger=ledger, budget=free, run_seed=0))
        )
    assert len(num_rows) == 10 and all(number > i for i, number in enumerate(num_rows))


def test_the_error_names_a_file_that_is_not_a_ledger(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(InputError, match=r"ledger.sqlite cannot be used"):
        Ledger(path)
