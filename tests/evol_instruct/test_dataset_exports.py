import json
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.helpers.evolved_files import record, write_run
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.data.instruction_records import read_examples
from wizardcoder_jax.evol_instruct import dataset_exports
from wizardcoder_jax.evol_instruct.dataset_exports import write_exports

TEXTS = ["plain", "", "line\nbreak \u2028 \u2029 \x85", "\U0001f600 \u0627 \x00 \x1f", '"quotes" \\ </script>', "x" * 100_000]
ALL = ("alpaca", "messages", "parquet")


@pytest.fixture
def run(tmp_path):
    seeds = [record(f"seed-{i}", instruction=f"{i} {text}", output=text) for i, text in enumerate(TEXTS)]
    children = [record(f"evol-{i}", seed, round_=1, method=6, language="rust", task="repair") for i, seed in enumerate(seeds)]
    return write_run(tmp_path, [*seeds, *children]), [*seeds, *children]


def test_every_format_has_the_same_records_in_the_same_order(run):
    folder, records = run
    names = [path.rpartition("/")[2] for path in write_exports(folder, ALL)]
    assert names == ["evolved.alpaca.json", "evolved.messages.jsonl", "evolved.parquet"]
    alpaca = json.loads((folder / names[0]).read_text())
    assert alpaca == [{"instruction": r["instruction"], "input": "", "output": r["output"]} for r in records]
    messages = [json.loads(line) for line in (folder / names[1]).read_text().split("\n") if line]
    assert [[turn["role"] for turn in line["messages"]] for line in messages] == [["user", "assistant"]] * len(records)
    assert [[turn["content"] for turn in line["messages"]] for line in messages] == [
        [r["instruction"], r["output"]] for r in records
    ]
    assert [(line["id"], line["seed_id"]) for line in messages] == [(r["id"], r["seed_id"]) for r in records]
    rows = parquet.read_table(folder / names[2]).to_pylist()
    for row in rows:
        row["usage"] = {name: row.pop(name) for name in ("prompt_tokens", "completion_tokens")}
    assert rows == records


def test_parquet_is_written_in_groups_and_typed(run, monkeypatch):
    monkeypatch.setattr(dataset_exports, "ROWS_PER_GROUP", 5)
    folder, records = run
    write_exports(folder, ["parquet"])
    file = parquet.ParquetFile(folder / "evolved.parquet")
    assert file.metadata.num_row_groups == -(-len(records) // 5)
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    types = {field.name: str(field.type) for field in file.schema_arrow}
    assert (types["round"], types["method"], types["prompt_tokens"]) == ("int32", "int32", "int64")
    assert types["filters"] == types["call_ids"] == "list<element: string>"


def test_training_reads_the_same_examples_from_every_format(run):
    folder, records = run
    written = write_exports(folder, ALL)
    own = [(e.instruction, e.input, e.output, e.record_id) for e in read_examples([str(folder / "evolved.jsonl")])]
    assert [(e.instruction, e.input, e.output) for e in read_examples([written[0]])] == [entry[:3] for entry in own]
    for path in written[1:]:
        assert [(e.instruction, e.input, e.output, e.record_id) for e in read_examples([path])] == own
    assert len(own) == len(records)


def test_the_datasets_library_reads_every_format(run, tmp_path):
    datasets = pytest.importorskip("datasets")
    folder, records = run
    for path, kind in zip(write_exports(folder, ALL), ("json", "json", "parquet"), strict=True):
        found = datasets.load_dataset(kind, data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(found) == len(records)
        texts = [turn[0]["content"] for turn in found["messages"]] if "messages" in path else list(found["instruction"])
        assert texts == [r["instruction"] for r in records]


def test_a_run_without_records_has_empty_exports(tmp_path):
    folder = write_run(tmp_path, [])
    write_exports(folder, ALL)
    assert json.loads((folder / "evolved.alpaca.json").read_text()) == []
    assert (folder / "evolved.messages.jsonl").read_text() == ""
    assert parquet.read_table(folder / "evolved.parquet").num_rows == 0


def test_exporting_again_writes_the_same_bytes(run):
    folder, _ = run
    first = [open_bytes(path) for path in write_exports(folder, ALL)]
    assert [open_bytes(path) for path in write_exports(folder, ALL)] == first


def open_bytes(path):
    return Path(path).read_bytes()


def test_a_failed_export_leaves_the_earlier_file_unchanged(run):
    folder, _ = run
    (path,) = write_exports(folder, ["alpaca"])
    before = open_bytes(path)
    with (folder / "evolved.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(InputError, match=r"evolved.jsonl:13: malformed JSON"):
        write_exports(folder, ["alpaca"])
    assert open_bytes(path) == before and not list(folder.glob(".*"))
    with pytest.raises(InputError, match="cannot read"):
        write_exports(folder / "nowhere", ["alpaca"])
