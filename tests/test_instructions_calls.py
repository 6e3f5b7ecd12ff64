import sqlite3

import pytest

from wizardcoder_jax.clients.budget import Budget
from wizardcoder_jax.clients.completion import Completion
from wizardcoder_jax.clients.ledger import Ledger, Spent
from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.instructions.calls import Calls

PRICED = TeacherConfig(usd_per_million_prompt_tokens=1.0, usd_per_million_completion_tokens=2.0, max_tokens=100)


class CountingTeacher:
    identity = "counting"

    def __init__(self, prompt_tokens=10):
        self.num_calls, self.prompt_tokens = 0, prompt_tokens

    def complete(self, messages):
        self.num_calls += 1
        return Completion(
            text=f"answer {self.num_calls} \ud800\0",
            finish_reason="stop",
            prompt_tokens=self.prompt_tokens,
            completion_tokens=20,
            model="m",
        )


def asked(path, teacher, *prompts, config=PRICED, record_id="seed-1", round_=1, purpose="answer"):
    free = Budget(max_requests=None, max_usd=None)
    with Ledger(path) as ledger:
        calls = Calls(teacher=teacher, config=config, ledger=ledger, budget=free)
        return [calls.ask(prompt, purpose=purpose, record_id=record_id, round_=round_) for prompt in prompts]


def test_an_answer_is_paid_for_once_and_comes_back_as_it_was(tmp_path):
    teacher, path = CountingTeacher(), tmp_path / "ledger.sqlite"
    first = asked(path, teacher, "p", "q")
    assert asked(path, teacher, "p", "q") == first
    assert teacher.num_calls == 2


def test_cost_follows_from_the_tokens_and_is_in_the_totals(tmp_path):
    path = tmp_path / "ledger.sqlite"
    ((_, usage),) = asked(path, CountingTeacher(), "p")
    assert usage.usd == pytest.approx((10 * 1.0 + 20 * 2.0) / 1e6)
    with Ledger(path) as ledger:
        assert ledger.totals() == Spent(requests=1, usd=usage.usd, tokens=30)


def test_tokens_that_the_server_does_not_report_are_counted_at_their_worst(tmp_path):
    ((_, usage),) = asked(tmp_path / "ledger.sqlite", CountingTeacher(prompt_tokens=None), "p" * 1000)
    assert usage.usd >= (1000 * 1.0 + 100 * 2.0) / 1e6


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


def test_a_row_is_durable_before_the_answer_is_used(tmp_path):
    path = tmp_path / "ledger.sqlite"
    free = Budget(max_requests=None, max_usd=None)
    with Ledger(path) as ledger:
        Calls(teacher=CountingTeacher(), config=PRICED, ledger=ledger, budget=free).ask(
            "p", purpose="answer", record_id="seed-1", round_=1
        )
        other = sqlite3.connect(path)
        assert other.execute("SELECT COUNT(*) FROM calls").fetchone() == (1,)
        other.close()


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(InputError, match=r"ledger.sqlite cannot be used"):
        Ledger(path)
