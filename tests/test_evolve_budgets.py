"""evolve with limits on calls, tokens and cost."""

import pytest

from tests.helpers.evolve_runs import KEY, arguments, ledger_totals, read_outputs, write_seeds
from tests.helpers.loopback_teacher import LoopbackTeacher, answer
from wizardcoder_jax import evolve
from wizardcoder_jax.core.errors import InputError, StoppedEarlyError


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def seeds(tmp_path):
    return write_seeds(tmp_path)


def test_a_limit_of_requests_holds_under_concurrency_and_a_larger_one_resumes(seeds, tmp_path):
    with LoopbackTeacher() as server:
        evolve.main(arguments(server, seeds, tmp_path / "unlimited"))
        num_calls = len(server.requests)
        server.requests.clear()
        for limit in (0, 10, 45):
            with pytest.raises(StoppedEarlyError, match=f"--max-requests {limit} "):
                evolve.main(arguments(server, seeds, tmp_path / "out", "--max-requests", str(limit), concurrency=8))
            assert len(server.requests) == ledger_totals(tmp_path / "out")[0] == limit
            assert not (tmp_path / "out" / "evolved.jsonl").exists()
        evolve.main(arguments(server, seeds, tmp_path / "out", "--max-requests", str(num_calls)))
        assert len(server.requests) == num_calls
        assert read_outputs(tmp_path / "out") == read_outputs(tmp_path / "unlimited")


def test_a_limit_of_cost_is_used_up_but_never_exceeded(seeds, tmp_path):
    prices = ["--teacher.usd-per-million-prompt-tokens", "1000", "--teacher.usd-per-million-completion-tokens", "1000"]
    with LoopbackTeacher() as server:
        with pytest.raises(StoppedEarlyError, match="--max-usd 3 "):
            arguments_ = arguments(server, seeds, tmp_path / "out", *prices, "--max-usd", "3", concurrency=8)
            evolve.main([*arguments_, "--teacher.max-tokens", "100"])
        num_calls, usd = ledger_totals(tmp_path / "out")
        assert num_calls == len(server.requests)
    assert 2.2 < usd <= 3.0  # one more call could have cost up to 0.7


def test_no_limit_is_exceeded_by_many_calls_in_flight(seeds, tmp_path):
    def run(server, folder, *limits):
        more = ["--teacher.max-tokens", "60", "--teacher.usd-per-million-completion-tokens", "1000", *map(str, limits)]
        evolve.main(arguments(server, seeds, tmp_path / folder, *more, concurrency=64))

    with LoopbackTeacher() as server:
        with pytest.raises(StoppedEarlyError, match="--max-requests 30 "):
            run(server, "requests", "--max-requests", 30)
        assert len(server.requests) == 30
    with LoopbackTeacher() as server:
        with pytest.raises(StoppedEarlyError, match="--max-tokens 4000 "):
            run(server, "tokens", "--max-tokens", 4000)
        assert 0 < sum(map(tokens_of, server.requests)) <= 4000
    with LoopbackTeacher() as server:
        with pytest.raises(StoppedEarlyError, match=r"--max-usd 0.2 "):
            run(server, "usd", "--max-usd", 0.2)
        answers = (answer(request["messages"][0]["content"])[0] for request in server.requests)
        assert 0.1 < sum(len(text.split()) for text in answers) * 1e-3 <= 0.2


def tokens_of(request):
    """Count tokens as the loopback teacher does."""
    prompt = request["messages"][0]["content"]
    return len(prompt.split()) + len(answer(prompt)[0].split())


def test_a_limit_of_cost_needs_prices(seeds, tmp_path):
    with pytest.raises(InputError, match="max_usd needs prices"):
        evolve.main(["--seeds", str(seeds), "--output-dir", str(tmp_path), "--max-usd", "1"])
