import gzip
import json

import pytest

from tests.helpers.shared_data import DATA_DIR
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.data.instruction_records import read_examples

pytestmark = pytest.mark.quick

DATA = DATA_DIR


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_records_keep_their_order_over_files_and_other_keys_are_ignored(tmp_path):
    first = write(tmp_path / "b.jsonl", {"id": "s1", "round": 1, "instruction": "x", "output": "1"})
    second = tmp_path / "a.json.gz"
    second.write_bytes(gzip.compress(json.dumps([{"instruction": "y", "input": "in", "output": ""}]).encode()))
    examples = read_examples([first, str(second)])
    assert [(e.instruction, e.input, e.output) for e in examples] == [("x", "", "1"), ("y", "in", "")]
    assert examples[0].location == f"{first}:1"


def test_parquet_records_with_a_null_input_are_read(tmp_path):
    import pyarrow
    from pyarrow import parquet

    file = str(tmp_path / "a.parquet")
    parquet.write_table(pyarrow.table({"instruction": ["x", "y"], "input": ["in", None], "output": ["1", "2"]}), file)
    assert [example.input for example in read_examples([file])] == ["in", ""]


def test_a_question_and_its_answer_are_read_from_messages(tmp_path):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "1"}]
    (example,) = read_examples([write(tmp_path / "a.jsonl", {"seed_id": "s1", "messages": turns})])
    assert (example.instruction, example.input, example.output, example.record_id) == ("x", "", "1", "s1")


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"instruction": "x"}, "missing key 'output'"),
        ({"prompt": "x", "output": "y"}, r"missing key 'instruction' \(found 'prompt', 'output'\)"),
        ({}, "found no keys"),
        ({"instruction": "x", "output": None}, "'output' must be a string, found NoneType"),
        ({"instruction": "x", "input": 3, "output": "y"}, "'input' must be a string, found int"),
        ({"instruction": " \n", "output": "y"}, "'instruction' is empty"),
        ({"messages": "x"}, "'messages' must be one user message and one assistant message, found str"),
        ({"messages": []}, "found list"),
        ({"messages": [{"role": "system", "content": "s"}]}, "found system"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant"}]}, "'output' must be a string, found NoneType"),
        ({"instruction": "x", "output": "ab\ud800"}, "'output' is not valid Unicode at character 2"),
    ],
)
def test_the_error_for_a_bad_record_names_file_line_and_key(tmp_path, record, complaint):
    file = write(tmp_path / "a.jsonl", {"instruction": "x", "output": "y"}, record)
    with pytest.raises(InputError, match=f"a.jsonl:2: .*{complaint}"):
        read_examples([file])


@pytest.mark.parametrize("content", ["", "\n\n", "[]"])
def test_files_without_examples_are_refused(tmp_path, content):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=r"no examples in .*a\.jsonl, .*b\.jsonl"):
        read_examples([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])


@pytest.mark.skipif(not DATA.is_dir(), reason="no WIZARDCODER_DATA")
@pytest.mark.parametrize(
    ("name", "count"),
    [("codealpaca/code_alpaca_20k.json.gz", 20_022), ("evol/evol_round1_of_2k.json", 1_966)],
)
def test_the_published_instruction_sets_are_read_completely(name, count):
    assert len(read_examples([str(DATA / name)])) == count
