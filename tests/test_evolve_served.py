"""evolve with a model behind `serve`, over HTTP."""

import json

import pytest

from tests.helpers import model_server
from wizardcoder_jax import evolve


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_server.endless_model(tmp_path_factory.mktemp("served") / "tiny")


def evolved(folder, tmp_path, name, *teacher):
    seeds = tmp_path / "seeds.jsonl"
    rows = [{"instruction": f"Add {i} numbers.", "output": "def add(*a):\n    return sum(a)"} for i in range(4)]
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = ["--seeds", str(seeds), "--output-dir", str(tmp_path / name), "--rounds", "2", *teacher]
    evolve.main([*named, "--teacher.max-tokens", "10"])
    files = [(tmp_path / name / file).read_text().splitlines() for file in ("evolved.jsonl", "rejected.jsonl")]
    return [[json.loads(line) for line in lines] for lines in files]


def test_evolve_runs_against_a_live_server_and_reruns_without_calls(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with model_server.ServerThread(folder, batch_size=4, max_length=1024, served_name="tiny") as server:
        teacher = ["--teacher.kind", "openai", "--teacher.base-url", f"{server.url}/v1", "--teacher.model", "tiny"]
        kept, rejected = evolved(folder, tmp_path, "out", *teacher)
        asked = server.metric('requests_total{code="200",path="/v1/chat/completions"}')
        assert asked >= 8
        assert server.metric("completion_tokens_total") <= 10 * asked + 8  # the warm-up requests are not counted
        assert evolved(folder, tmp_path, "out", *teacher) == [kept, rejected]
        assert server.metric('requests_total{code="200",path="/v1/chat/completions"}') == asked
    assert {row["round"] for row in rejected} | {row["round"] for row in kept if row["round"]} == {1, 2}
    assert len([row for row in kept if row["round"] == 0]) + 8 >= len(kept)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary
    assert (tmp_path / "out" / "data_card.md").exists()
