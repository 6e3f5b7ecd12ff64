import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from byte_tokenizer import ByteTokenizer, plain_tokenise

from wizardcoder_jax.data import cache
from wizardcoder_jax.data.batches import FEATURES
from wizardcoder_jax.data.cache import prepare
from wizardcoder_jax.errors import InputError

MAX_LENGTH = 256


class CountingTasks(types.ModuleType):
    """Stands in for the seqio module, which takes many seconds to import; counts how often it is asked."""

    def __init__(self):
        super().__init__("wizardcoder_jax.data.tasks")
        self.calls = 0

    def tokenise(self, examples, tokenizer):
        self.calls += 1
        return plain_tokenise(examples, tokenizer)


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    module = CountingTasks()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("wizardcoder_jax.data.tasks", module, raising=False)
    return module


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "seeds.jsonl"
    records = [{"instruction": f"write {i}", "output": "x" * (i % 7)} for i in range(20)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def prepared(file, tmp_path, **changes):
    arguments = {"tokenizer": ByteTokenizer(), "max_length": MAX_LENGTH, "cache_dir": str(tmp_path / "cache"), **changes}
    return prepare([str(file)], **arguments)


def folder_of(tmp_path):
    (folder,) = (path for path in (tmp_path / "cache" / "packed").iterdir() if path.is_dir())
    return folder


def assert_same(left, right):
    for name in cache.ARRAYS:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert left.counts == right.counts


def test_a_warm_cache_gives_the_same_dataset_without_tokenising(file, tmp_path, tasks):
    cold = prepared(file, tmp_path)
    assert_same(cold, prepared(file, tmp_path))
    assert tasks.calls == 1


def test_a_warm_cache_imports_neither_seqio_nor_tensorflow_nor_jax(file, tmp_path):
    prepared(file, tmp_path)
    program = f"""
import sys
from byte_tokenizer import ByteTokenizer
from wizardcoder_jax.data.batches import Batches
from wizardcoder_jax.data.cache import prepare
Batches(prepare([{str(file)!r}], ByteTokenizer(), {MAX_LENGTH}, {str(tmp_path / "cache")!r}), 2, 0).batch(0)
print([name for name in ("seqio", "tensorflow", "jax", "wizardcoder_jax.data.tasks") if name in sys.modules])
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "changes", [{"tokenizer": ByteTokenizer("2")}, {"max_length": MAX_LENGTH + 1}], ids=["tokenizer", "max_length"]
)
def test_another_tokenizer_or_length_is_prepared_anew(file, tmp_path, tasks, changes):
    prepared(file, tmp_path)
    prepared(file, tmp_path, **changes)
    assert tasks.calls == 2


def test_contents_count_and_names_do_not(file, tmp_path, tasks):
    prepared(file, tmp_path)
    renamed = file.rename(tmp_path / "other.jsonl")
    prepared(renamed, tmp_path)
    assert tasks.calls == 1
    renamed.write_text(renamed.read_text().replace("write 3", "write three"))
    prepared(renamed, tmp_path)
    assert tasks.calls == 2


def test_another_template_is_prepared_anew(file, tmp_path, tasks, monkeypatch):
    prepared(file, tmp_path)
    monkeypatch.setattr("wizardcoder_jax.prompts.RESPONSE_MARK", "### Answer:")
    prepared(file, tmp_path)
    assert tasks.calls == 2


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["tokens.npy", "row_starts.npy", "manifest.json"])
def test_a_damaged_cache_is_made_anew(file, tmp_path, tasks, capsys, damage, name):
    cold = prepared(file, tmp_path)
    # A copy: reading a mapped file that was cut under the reader is a bus error.
    cold = dataclasses.replace(cold, **{name: getattr(cold, name).copy() for name in cache.ARRAYS})
    damage(folder_of(tmp_path) / name)
    again = prepared(file, tmp_path)
    assert tasks.calls == 2
    assert "is made anew" in capsys.readouterr().err
    assert_same(again, cold)
    prepared(file, tmp_path)
    assert tasks.calls == 2


def test_an_interrupted_preparation_leaves_nothing_behind(file, tmp_path, tasks, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(cache, "write_json", interrupt)
        prepared(file, tmp_path)
    assert [path for path in (tmp_path / "cache" / "packed").iterdir() if path.is_dir()] == []
    prepared(file, tmp_path)
    assert tasks.calls == 2


def test_ctrl_c_during_the_slow_imports_takes_effect_after_them(file, tmp_path, monkeypatch):
    finished = []

    class SlowPackage(types.ModuleType):
        def __getattr__(self, name):
            if name != "tasks":
                raise AttributeError(name)
            signal.raise_signal(signal.SIGINT)
            finished.append(name)
            return CountingTasks()

    monkeypatch.setitem(sys.modules, "wizardcoder_jax.data", SlowPackage("wizardcoder_jax.data"))
    with pytest.raises(KeyboardInterrupt):
        prepared(file, tmp_path)
    assert finished == ["tasks"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_leftovers_of_a_killed_preparation_are_removed(file, tmp_path):
    prepared(file, tmp_path)
    folder = folder_of(tmp_path)
    leftover = folder.with_name(f".{folder.name}.killed")
    folder.rename(leftover)
    prepared(file, tmp_path)
    assert not leftover.exists()


def test_concurrent_preparers_share_the_work(file, tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        calls = pool.map(_prepare_in_child, [(str(file), str(tmp_path / "cache"))] * 3, chunksize=1)
    assert sum(calls) == 1
    assert folder_of(tmp_path).is_dir()


def _prepare_in_child(arguments):
    file, cache_dir = arguments
    module = sys.modules["wizardcoder_jax.data.tasks"] = CountingTasks()
    prepare([file], ByteTokenizer(), MAX_LENGTH, cache_dir)
    return module.calls


def records(tmp_path, *outputs_and_instructions):
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps({"instruction": i, "output": o}) + "\n" for i, o in outputs_and_instructions))
    return path


def test_the_counts_say_what_went_in_and_what_did_not(tmp_path, capsys):
    file = records(tmp_path, ("short", "yes"), ("long answer", "y" * 500), ("long prompt " * 100, "no"))
    dataset = prepared(file, tmp_path)
    counts = dataset.counts
    assert (counts.examples, counts.dropped, counts.truncated, counts.rows) == (3, 1, 1, 2)
    assert counts.tokens == (dataset.segment_ids > 0).sum()
    assert counts.supervised_tokens == dataset.weights.sum()
    assert counts.fill == pytest.approx(counts.tokens / (2 * MAX_LENGTH))
    err = capsys.readouterr().err
    assert f"1 of 3 prompts fill max_length {MAX_LENGTH} and are dropped ({file}:3 ...)" in err
    assert f"1 of 3 responses are cut at max_length {MAX_LENGTH}" in err
    assert json.loads((folder_of(tmp_path) / "manifest.json").read_text())["counts"]["dropped"] == 1


def test_loss_weights_stand_on_the_response_and_its_end_as_targets(tmp_path):
    dataset = prepared(records(tmp_path, ("say <|endoftext|> twice", "a<|endoftext|>b")), tmp_path)
    supervised = dataset.targets[dataset.weights == 1]
    assert supervised.tolist() == [ord("a") + 1, 0, ord("b") + 1, 0]
    prompt_end = dataset.tokens[0, int(np.argmax(dataset.weights[0]))]
    assert prompt_end == ord(":") + 1


@pytest.mark.parametrize(("spare", "expected"), [(0, None), (1, "x"), (3, "xyz"), (4, "xyz\0")])
def test_a_response_is_cut_at_max_length_and_the_end_token_goes_first(tmp_path, spare, expected):
    file = records(tmp_path, ("i", "xyz"), ("", ""))
    file.write_text(file.read_text().splitlines()[0] + "\n")
    prompt_length = len(next(plain_tokenise(cache.read_examples([str(file)]), ByteTokenizer()))[0]) - 4
    if expected is None:
        with pytest.raises(InputError, match=r"every prompt is longer than max_length .*records\.jsonl:1.*--max-length"):
            prepared(file, tmp_path, max_length=prompt_length + spare)
        return
    dataset = prepared(file, tmp_path, max_length=prompt_length + spare)
    text = "".join(chr(max(token - 1, 0)) for token in dataset.targets[dataset.weights == 1])
    assert text == expected


def test_a_cache_folder_that_cannot_be_made_is_named(file, tmp_path):
    (tmp_path / "blocked").write_text("a file, not a folder")
    with pytest.raises(InputError, match=r"blocked.*choose another"):
        prepared(file, tmp_path, cache_dir=str(tmp_path / "blocked"))


def test_a_cache_in_an_object_store_is_refused(file, tmp_path):
    with pytest.raises(InputError, match=r"local folder, not gs://bucket"):
        prepared(file, tmp_path, cache_dir="gs://bucket/cache")


def test_a_cut_gzip_file_is_named(tmp_path):
    import gzip

    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"instruction": "x", "output": "y"}\n' * 100)[:-20])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz: cannot be read whole"):
        prepared(path, tmp_path)


def test_arrays_are_memory_mapped_and_read_only(file, tmp_path):
    dataset = prepared(file, tmp_path)
    for name in FEATURES:
        array = getattr(dataset, name)
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable
