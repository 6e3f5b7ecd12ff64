import dataclasses
import gzip
import json
from pathlib import Path

import pytest

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.samples_file import Sample, meta_path, read_meta, read_samples, write_evalplus, write_human_eval
from wizardcoder_jax.core.errors import InputError

pytestmark = pytest.mark.quick


def write_lines(path, *records):
    text = "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.fixture
def problems():
    empty = Problem(task_id="T/0", prompt="def f():\n", entry_point="f", canonical_solution="", test="")
    return empty, dataclasses.replace(empty, task_id="T/1")


def test_every_format_is_read(problems, tmp_path):
    ours = {"task_id": "T/0", "sample_index": 4, "completion": "c", "raw": "r", "num_tokens": 1, "finish_reason": "stop"}
    assert read_samples(write_lines(tmp_path / "ours.jsonl", ours), problems) == [
        Sample(task_id="T/0", sample_index=4, completion="c", raw="r")
    ]
    rows = [{"task_id": "T/0", "completion": x} for x in "ab"] + [{"task_id": "T/1", "completion": "c"}]
    assert [(s.task_id, s.sample_index) for s in read_samples(write_lines(tmp_path / "h.jsonl.gz", *rows), problems)] == [
        ("T/0", 0),
        ("T/0", 1),
        ("T/1", 0),
    ]
    (evalplus,) = read_samples(write_lines(tmp_path / "e.jsonl", {"task_id": "T/1", "solution": "s"}), problems)
    assert (evalplus.solution, evalplus.completion) == ("s", None)
    (tmp_path / "bigcode.json").write_text(json.dumps([["a", "b"], ["c"]]))
    bigcode = read_samples(str(tmp_path / "bigcode.json"), problems)
    assert [(s.task_id, s.sample_index, s.solution) for s in bigcode] == [("T/0", 0, "a"), ("T/0", 1, "b"), ("T/1", 0, "c")]


def test_a_task_can_be_given_by_its_number(problems, tmp_path):
    rows = [{"task_id": named, "completion": "c"} for named in (1, "1", "T/1", "t/1")]
    found = read_samples(write_lines(tmp_path / "s.jsonl", *rows), problems)
    assert [(sample.task_id, sample.sample_index) for sample in found] == [("T/1", i) for i in range(4)]


def test_the_files_of_a_folder_are_read_together(problems, tmp_path):
    (tmp_path / "rows").mkdir()
    write_lines(tmp_path / "rows" / "1.jsonl", {"task_id": "T/1", "completion": "b"})
    write_lines(tmp_path / "rows" / "0.jsonl.gz", {"task_id": "T/0", "completion": "a"}, {"task_id": "T/1", "completion": "c"})
    found = read_samples(str(tmp_path / "rows"), problems)
    assert [(s.task_id, s.sample_index, s.completion) for s in found] == [("T/0", 0, "a"), ("T/1", 0, "c"), ("T/1", 1, "b")]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="contains no sample"):
        read_samples(str(tmp_path / "none"), problems)
    assert meta_path("a/rows/") == "a/rows.meta.json"


def test_rows_of_the_wizardcoder_scripts_are_read(problems, tmp_path):
    row = {"task_id": "T/0", "completion": "c", "all_code": "prompt c"}
    assert read_samples(write_lines(tmp_path / "s.jsonl", row), problems)[0].completion == "c"


def test_bytes_that_are_not_utf8_are_an_error(problems, tmp_path):
    (tmp_path / "s.jsonl").write_bytes(json.dumps(GOOD).encode() + b'\n{"task_id": "T/1", "completion": "\xff"}\n')
    with pytest.raises(InputError, match=r"s\.jsonl: not UTF-8 at byte"):
        read_samples(str(tmp_path / "s.jsonl"), problems)


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.gz"])
def test_files_for_other_harnesses_can_be_read_back(problems, tmp_path, name):
    path = str(tmp_path / name)
    write_human_eval(path, [("T/0", "    return '\u2028é'"), ("T/1", "")])
    assert [(s.task_id, s.completion) for s in read_samples(path, problems)] == [("T/0", "    return '\u2028é'"), ("T/1", "")]
    write_evalplus(path, [("T/1", "x = 1\n")])
    assert [(s.task_id, s.solution) for s in read_samples(path, problems)] == [("T/1", "x = 1\n")]


GOOD = {"task_id": "T/0", "sample_index": 0, "completion": "c"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (GOOD | {"task_id": "U/0"}, r"s\.jsonl:2: unknown task 'U/0'"),
        (GOOD, r"s\.jsonl:2: sample 0 of T/0 occurs twice"),
        ({"completion": "c"}, r's\.jsonl:2: missing field "task_id"'),
        ({"task_id": "T/1"}, r's\.jsonl:2: expected "completion"'),
        (GOOD | {"task_id": ["T/0"]}, r's\.jsonl:2: "task_id" must be of type str or int, found list'),
        (GOOD | {"task_id": True}, r's\.jsonl:2: "task_id" must be of type str or int, found bool'),
        (GOOD | {"task_id": 7}, r"s\.jsonl:2: unknown task '7'"),
        (GOOD | {"sample_index": "1"}, r's\.jsonl:2: "sample_index" must be of type int'),
        (GOOD | {"sample_index": True}, r's\.jsonl:2: "sample_index" must be of type int'),
        (GOOD | {"sample_index": -1}, r"at least 0, got -1"),
        (GOOD | {"sample_index": 1, "completion": ["c"]}, r's\.jsonl:2: "completion" must be of type str, found list'),
        ('{"task_id": "T/1", "comp', r"s\.jsonl:2: malformed JSON"),
        ("[1]", r"s\.jsonl:2: expected a JSON object"),
        ('{"task_id": ' + "1" * 5000 + "}", r"s\.jsonl:2: malformed JSON"),
        ('{"task_id": ' + "[" * 100_000, r"s\.jsonl:2: malformed JSON"),
    ],
)
def test_a_bad_sample_is_reported_with_its_line(problems, tmp_path, record, message):
    with pytest.raises(InputError, match=message):
        read_samples(write_lines(tmp_path / "s.jsonl", GOOD, record), problems)


def test_an_empty_or_truncated_samples_file_is_an_input_error(problems, tmp_path):
    with pytest.raises(InputError, match="contains no sample"):
        read_samples(write_lines(tmp_path / "empty.jsonl"), problems)
    path = Path(write_lines(tmp_path / "cut.jsonl.gz", GOOD))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged or incomplete"):
        read_samples(str(path), problems)
    with pytest.raises(InputError, match="cannot read"):
        read_samples(str(tmp_path / "absent.jsonl"), problems)


def test_a_file_that_is_nested_too_deeply_is_an_input_error(problems, tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"deep\.json: malformed JSON"):
        read_samples(str(tmp_path / "deep.json"), problems)


def test_the_settings_of_a_samples_file_are_next_to_it(tmp_path):
    assert meta_path("a/samples.jsonl") == meta_path("a/samples.jsonl.gz") == "a/samples.meta.json"
    assert read_meta(str(tmp_path / "samples.jsonl")) == {}
    for text in ('{"protocol": "chat"}\n{"more": 1}\n', '{\n  "protocol": "chat"\n}\n'):
        (tmp_path / "samples.meta.json").write_text(text)
        assert read_meta(str(tmp_path / "samples.jsonl")) == {"protocol": "chat"}
    (tmp_path / "samples.meta.json").write_text("{")
    with pytest.raises(InputError, match=r"samples\.meta\.json: malformed JSON"):
        read_meta(str(tmp_path / "samples.jsonl"))
