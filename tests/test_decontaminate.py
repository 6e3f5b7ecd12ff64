import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from tests.helpers.shared_data import DATA_DIR, shared
from wizardcoder_jax import decontaminate
from wizardcoder_jax.config import DecontaminateConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.record_files import read_records

ROOT = Path(__file__).parents[1]
STATEMENT = "Return the seventh heron that wades upstream past both lanterns before the bell has rung."
LEAK = f"Please: {STATEMENT.upper()}"
ORDINARY = "Sort a list of numbers."


@pytest.fixture
def benchmarks(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "b.jsonl").write_text(json.dumps({"task_id": "B/1", "prompt": STATEMENT}) + "\n")
    (tmp_path / "benchmarks" / "settings.json").write_text('{"text": "not a problem"}')
    return tmp_path / "benchmarks"


def run(tmp_path, benchmarks, *data, more=()):
    named = ["--data", *map(str, data), "--benchmarks-dir", str(benchmarks), "--output", str(tmp_path / "clean.jsonl")]
    decontaminate.main([*named, "--rejected", str(tmp_path / "rejected.jsonl"), *more])
    clean, rejected = (read(tmp_path / name) for name in ("clean.jsonl", "rejected.jsonl"))
    return clean, rejected, json.loads((tmp_path / "clean.jsonl.report.json").read_text())


def read(path):
    return [record for _, record in read_records(path)]


def write(path, records):
    if ".parquet" in path.name:
        parquet.write_table(pyarrow.Table.from_pylist(records), path)
        return path
    text = json.dumps(records) if ".jsonl" not in path.name else "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


def instruction(text):
    return {"instruction": text, "input": "", "output": "x", "source": {"line": [1, 2.5, None]}}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.parquet"])
def test_clean_records_are_kept_unchanged_in_every_file_format(tmp_path, benchmarks, name):
    records = [instruction(ORDINARY), instruction(LEAK), instruction("Zähle\u2028 bis 🙂.")]
    clean, rejected, report = run(tmp_path, benchmarks, write(tmp_path / name, records))
    assert clean == [records[0], records[2]]
    assert [{field: entry[field] for field in records[1]} for entry in rejected] == [records[1]]
    assert rejected[0]["rule"] == "contaminated" and "B/1" in rejected[0]["evidence"]
    assert report["by_tier"] == {"substring": 1, "ngram": 0, "code": 0}
    assert report["by_benchmark"] == {"b.jsonl": {"num_records": 1, "num_problems": 1}}
    assert (report["num_records"], report["num_kept"], report["num_contaminated"]) == (3, 2, 1)
    evidence = report["evidence"][0]
    assert (evidence["tier"], evidence["benchmark"], evidence["task_id"], evidence["score"]) == (
        "substring",
        "b.jsonl",
        "B/1",
        1,
    )
    assert evidence["text"] == STATEMENT.upper().rstrip(".") and evidence["record"].endswith((":2", ":[1]"))


@pytest.mark.parametrize(
    "leak",
    [
        {"instruction": "x", "input": LEAK, "output": "y"},
        {"instruction": "x", "output": LEAK},
        {"instruction": "x", "response": LEAK},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": LEAK}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LEAK}]}]},
        {"conversations": [{"from": "human", "value": LEAK}, {"from": "gpt", "value": "x"}]},
        {"prompt": "x", "completion": LEAK},
        {"problem": LEAK, "solution": None},
        {"text": LEAK},
        {"instruction": LEAK.split("PAST")[0], "output": "PAST" + LEAK.split("PAST")[1]},
    ],
)
def test_a_leak_is_found_in_every_record_layout(tmp_path, benchmarks, leak):
    clean, rejected, _ = run(tmp_path, benchmarks, write(tmp_path / "a.jsonl", [leak, {"text": ORDINARY}]))
    assert len(rejected) == 1 and clean == [{"text": ORDINARY}]


def test_text_fields_replaces_the_default_fields(tmp_path, benchmarks):
    records = [{"instruction": LEAK, "body": "x"}, {"instruction": "x", "body": LEAK}]
    clean, _, _ = run(tmp_path, benchmarks, write(tmp_path / "a.jsonl", records), more=["--text-fields", "body"])
    assert clean == records[:1]


@pytest.mark.parametrize(
    ("record", "more", "complaint"),
    [
        (
            {"body": "x"},
            (),
            r"a\.jsonl:2: no known text field \(fields: body\); name the fields that contain text with --text-fields",
        ),
        ({"instruction": 5}, (), r'a\.jsonl:2: field "instruction" is int, expected a string'),
        ({"messages": [{"content": 7}]}, (), r'a\.jsonl:2: field "messages" is int'),
        ({"text": "x"}, ("--text-fields", "body"), r'a\.jsonl:1: field "body" is missing'),
    ],
)
def test_a_record_without_text_is_reported_before_anything_is_written(tmp_path, benchmarks, record, more, complaint):
    data = write(tmp_path / "a.jsonl", [{"text": "x"}, record])
    with pytest.raises(InputError, match=complaint):
        run(tmp_path, benchmarks, data, more=more)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "benchmarks"]


def test_lone_surrogates_and_huge_numbers_are_kept(tmp_path, benchmarks):
    line = '{"instruction": "\\ud800 x", "output": "y", "n": 123456789012345678901234567890}\n'
    (tmp_path / "a.jsonl").write_text(line)
    clean, _, _ = run(tmp_path, benchmarks, tmp_path / "a.jsonl")
    assert clean == [json.loads(line)]


def test_rerunning_does_nothing_and_other_outputs_are_replaced_only_with_overwrite(tmp_path, benchmarks, capsys):
    data = write(tmp_path / "a.jsonl", [instruction(ORDINARY), instruction(LEAK)])
    run(tmp_path, benchmarks, data)
    written = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*.json*")}
    capsys.readouterr()
    run(tmp_path, benchmarks, data)
    assert "is already up to date" in capsys.readouterr().err
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*.json*")} == written
    write(data, [instruction(LEAK)])
    with pytest.raises(
        InputError, match=r"clean\.jsonl already exists, but was made from other data or settings; replace it with --overwrite"
    ):
        run(tmp_path, benchmarks, data)
    assert run(tmp_path, benchmarks, data, more=["--overwrite"])[0] == []
    write(data, [instruction(ORDINARY), instruction(LEAK)])
    run(tmp_path, benchmarks, data, more=["--overwrite"])
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json*")} == {
        name: own for name, (own, _) in written.items()
    }


def test_an_output_name_of_another_format_is_refused(tmp_path, benchmarks):
    with pytest.raises(ValueError, match=r"c\.parquet: records are written as JSONL"):
        DecontaminateConfig(data=("a.jsonl",), benchmarks_dir=str(benchmarks), output="c.parquet")


def test_a_folder_without_problems_and_an_output_that_is_an_input_are_refused(tmp_path, benchmarks):
    data = write(tmp_path / "clean.jsonl", [instruction(ORDINARY)])
    with pytest.raises(InputError, match="is an input file and would be replaced"):
        run(tmp_path, benchmarks, data)
    (benchmarks / "b.jsonl").unlink()
    with pytest.raises(InputError, match="contains no problems"):
        run(tmp_path, benchmarks, write(tmp_path / "a.jsonl", [instruction("x")]))


@pytest.mark.parametrize("num_records", [100, pytest.param(None, marks=pytest.mark.slow)])
def test_the_command_cleans_real_data(tmp_path, num_records):
    benchmarks = DATA_DIR
    data = Path(shared("codealpaca/code_alpaca_2k.json"))
    if num_records is not None:
        for name in ("humaneval", "hf_configs"):
            shutil.copytree(DATA_DIR / name, tmp_path / "benchmarks" / name)
        benchmarks, data = tmp_path / "benchmarks", write(tmp_path / "data.json", read(data)[:num_records])
    command = [sys.executable, "-m", "wizardcoder_jax.decontaminate", "--data", data, "--benchmarks-dir", benchmarks]
    done = subprocess.run(
        [*command, "--output", "c.jsonl.gz"], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": ROOT}
    )
    assert done.returncode == 0, done.stderr
    assert "humaneval/HumanEval.jsonl.gz (164)" in done.stderr and "skipped files that contain no problems: " in done.stderr
    report = json.loads((tmp_path / "c.jsonl.gz.report.json").read_text())
    assert report["num_kept"] == len(read(tmp_path / "c.jsonl.gz")) >= 0.995 * report["num_records"]
