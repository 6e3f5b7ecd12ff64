import asyncio
import contextlib
import sqlite3

import pytest

from wizardcoder_jax.core.errors import InputError, StoppedEarlyError
from wizardcoder_jax.llm_client.completion import Completion
from wizardcoder_jax.llm_client.ledger import Ledger, LedgerRow

pytestmark = pytest.mark.quick


def row(i, text="x"):
    completion = Completion(text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=2, model="m")
    return LedgerRow(key=f"k{i}", purpose="evolve", record_id="r", number=i, messages="p", completion=completion, usd=0.5)


def keys(path):
    connection = sqlite3.connect(path)
    try:
        return {key for (key,) in connection.execute("SELECT key FROM calls")}
    finally:
        connection.close()


def test_concurrent_rows_share_a_transaction_and_each_is_durable_when_put_returns(tmp_path):
    path, commits = tmp_path / "ledger.sqlite", []

    async def put(ledger, i):
        await ledger.put(row(i))
        assert f"k{i}" in keys(path)

    async def put_all(ledger):
        await asyncio.gather(*(put(ledger, i) for i in range(200)))

    with Ledger(path) as ledger:
        ledger._writer.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
        asyncio.run(put_all(ledger))
        assert len(commits) < 20
        assert ledger.totals().requests == 200 and ledger.get("k7") == (row(7).completion, 0.5)


def test_nothing_more_is_paid_for_after_a_row_could_not_be_written(tmp_path):
    path = tmp_path / "ledger.sqlite"

    async def put_all(ledger):
        await ledger.put(row(0))
        ledger.check()
        ledger._writer.execute("PRAGMA max_page_count = 10")  # a disk of 40 kB
        results = await asyncio.gather(*(ledger.put(row(i, "y" * 30_000)) for i in (1, 2)), return_exceptions=True)
        assert [type(result) for result in results] == [StoppedEarlyError] * 2 and "is full" in str(results[0])
        with pytest.raises(StoppedEarlyError, match="free disk space"):
            ledger.check()
        assert ledger.get("k0") is not None

    with Ledger(path) as ledger:
        asyncio.run(put_all(ledger))
    assert keys(path) == {"k0"}
    with Ledger(path) as ledger:  # there is disk space again
        asyncio.run(ledger.put(row(1, "y" * 30_000)))
    assert keys(path) == {"k0", "k1"}


def test_answers_waiting_to_be_written_are_written_when_the_run_is_interrupted(tmp_path):
    async def interrupted(ledger):
        waiting = [asyncio.ensure_future(ledger.put(row(i))) for i in range(3)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asyncio.run(interrupted(ledger))
    assert keys(tmp_path / "ledger.sqlite") == {"k0", "k1", "k2"}


@pytest.mark.parametrize("content", ["{", '{"words": "x"}', "[]"])
def test_a_damaged_row_is_one_clear_error(tmp_path, content):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        asyncio.run(ledger.put(row(0)))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE calls SET completion = ?", (content,))
    with Ledger(path) as ledger, pytest.raises(InputError, match=r"ledger\.sqlite cannot be used"):
        ledger.get("k0")


def test_a_table_with_other_columns_is_rejected_before_anything_is_paid_for(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE calls (key TEXT PRIMARY KEY, answer TEXT)")
    with pytest.raises(InputError, match=r"ledger\.sqlite cannot be used"):
        Ledger(path)


def test_a_ledger_of_an_earlier_release_can_be_read_and_written(tmp_path):
    path = tmp_path / "ledger.sqlite"
    connection = sqlite3.connect(path)
    columns = "key TEXT PRIMARY KEY, purpose TEXT, record_id TEXT, round INTEGER, messages TEXT, completion TEXT, usd REAL"
    connection.execute(f"CREATE TABLE calls ({columns}) WITHOUT ROWID")
    connection.execute("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", row(0).values())
    connection.commit()
    connection.close()
    with Ledger(path) as ledger:
        asyncio.run(ledger.put(row(1)))
        assert ledger.get("k0") == (row(0).completion, 0.5) and ledger.totals().requests == 2
