import gzip
import json
import tracemalloc

import pyarrow
import pytest
from pyarrow import parquet

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.record_files import read_records, write_jsonl

pytestmark = pytest.mark.quick

RECORDS = [{"instruction": "Zähle\u2028bis drei", "output": "1\n2\n3"}, {"instruction": "b", "input": "", "output": "🙂"}]


def records_of(path):
    return [record for _, record in read_records(path)]


def write(path, records):
    """Write `records` in the format of the file name."""
    if ".parquet" in path.name:
        parquet.write_table(pyarrow.Table.from_pylist(records), path)
        return
    is_lines = ".jsonl" in path.name
    text = "\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\n" if is_lines else json.dumps(records, indent=1)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz"])
def test_records_are_read_from_every_format(tmp_path, name):
    write(tmp_path / name, RECORDS)
    assert records_of(tmp_path / name) == RECORDS


@pytest.mark.parametrize("name", ["a.parquet"])
def test_parquet_records_are_read(tmp_path, name):
    records = [{"instruction": "a", "output": "b"}, {"instruction": "c", "output": None}]
    write(tmp_path / name, records)
    assert list(read_records(tmp_path / name)) == [(f"{tmp_path / name}:[{i}]", r) for i, r in enumerate(records)]


def test_the_place_of_a_record_is_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n  \n{"a": 2}\r\n')
    assert list(read_records(tmp_path / "a.jsonl")) == [
        (f"{tmp_path}/a.jsonl:1", {"a": 1}),
        (f"{tmp_path}/a.jsonl:4", {"a": 2}),
    ]


@pytest.mark.parametrize("text", ['{"a": 1}\n', '[{"a": 1}]', '[\n{"a": 1}\n]\n'])
def test_a_byte_order_mark_is_not_part_of_the_first_record(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8-sig")
    assert records_of(tmp_path / "a.jsonl") == [{"a": 1}]


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    assert records_of(tmp_path / "a.jsonl") == []


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"a\.jsonl:2: malformed JSON"),
        ("a.jsonl", b'{"a": 1}\n[2]\n', r"a\.jsonl:2: expected a JSON object, found list"),
        ("a.jsonl", b'{"a": 1}\n"text"\n', r"a\.jsonl:2: expected a JSON object, found str"),
        ("a.jsonl", b'{"a": "\xff"}\n', r"a\.jsonl: not UTF-8 at byte 7"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000, r"a\.jsonl:1: malformed JSON"),
        ("a.json", b'[\n{"a": 1},\n{"a": }\n]', r"a\.json, line 3: malformed JSON"),
        ("a.json", b'[{"a": 1}, 7]', r"a\.json:\[1\]: expected a JSON object, found int"),
        ("a.parquet", b"PAR1 but not", r"a\.parquet: not a readable parquet file"),
        ("a.parquet", b"", r"a\.parquet: not a readable parquet file"),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz: the file is damaged or incomplete"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:30], r"a\.jsonl\.gz: the file is damaged or incomplete"),
    ],
)
def test_the_error_for_a_malformed_file_names_the_line(tmp_path, name, content, complaint):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=complaint) as caught:
        records_of(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_error_for_a_damaged_gzip_file_names_it(tmp_path):
    whole = bytearray(gzip.compress(json.dumps({"a": list(range(2000))}).encode()))
    for i in range(len(whole) // 2, len(whole) // 2 + 40):
        whole[i] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(bytes(whole))
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: the file is damaged or incomplete"):
        records_of(tmp_path / "a.jsonl.gz")


def test_the_error_for_a_damaged_gzipped_parquet_file_names_it(tmp_path):
    (tmp_path / "a.parquet.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"a\.parquet\.gz: "):
        records_of(tmp_path / "a.parquet.gz")


def test_the_error_for_a_missing_file_or_a_folder_names_it(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none\.jsonl: No such file"):
        records_of(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        records_of(tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_written_records_read_back_and_equal_records_give_equal_bytes(tmp_path, name):
    write_jsonl(tmp_path / "new/folder" / name, iter(RECORDS))
    assert records_of(tmp_path / "new/folder" / name) == RECORDS
    write_jsonl(tmp_path / name, RECORDS)
    assert (tmp_path / name).read_bytes() == (tmp_path / "new/folder" / name).read_bytes()


def test_records_are_streamed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"a": 1}\n' + b'{"a": 2}\n' * 100_000 + b"\xff")
    records = read_records(path)
    assert next(records) == (f"{path}:2", {"a": 1})
    with pytest.raises(InputError, match=f"not UTF-8 at byte {10 + 9 * 100_000}"):
        list(records)


def test_reading_a_large_file_takes_little_memory(tmp_path):
    path = tmp_path / "a.jsonl"
    line = json.dumps({"a": "x" * 1000}).encode() + b"\n"
    path.write_bytes(line * 20_000)
    tracemalloc.start()
    assert sum(1 for _ in read_records(path)) == 20_000
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1_000_000
