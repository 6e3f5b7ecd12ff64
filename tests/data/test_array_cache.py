import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.byte_tokenizer import ByteTokenizer, tokenize_plainly
from wizardcoder_jax.config import TrainConfig, ValidationConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import with_input, wizardcoder_prompt
from wizardcoder_jax.core.logging_setup import configure_logging
from wizardcoder_jax.data import array_cache
from wizardcoder_jax.data.batches import Batches
from wizardcoder_jax.data.instruction_records import read_examples
from wizardcoder_jax.data.prepare import cache_key, prepare_data
from wizardcoder_jax.data.tokenization import TOKENIZATIONS

pytestmark = pytest.mark.quick

MAX_LENGTH = 256


class CountingTasks(types.ModuleType):
    """A fake of seqio_tasks, which takes many seconds to import. It counts the calls."""

    def __init__(self):
        super().__init__("wizardcoder_jax.data.seqio_tasks")
        self.calls = 0

    def tokenize_instructions(self, examples, tokenizer, objective, max_length):
        self.calls += 1
        texts = [wizardcoder_prompt(with_input(e.instruction, e.input)) for e in examples]
        return TOKENIZATIONS[objective].tokenize(texts, [e.output for e in examples], tokenizer, max_length)


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    module = CountingTasks()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("wizardcoder_jax.data.seqio_tasks", module, raising=False)
    return module


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "seeds.jsonl"
    records = [{"instruction": f"write {i}", "output": "x" * (i % 7)} for i in range(20)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def config_of(tmp_path, **changes):
    return TrainConfig(**{"max_length": MAX_LENGTH, "cache_dir": str(tmp_path / "cache"), "batch_size": 8, **changes})


def prepared(file, tmp_path, tokenizer=None, **changes):
    """Prepare and return the training data of a config with `changes`."""
    return prepare_data(config_of(tmp_path, **changes), [str(file)], tokenizer or ByteTokenizer()).train


def folder_of(tmp_path):
    (folder,) = (path for path in (tmp_path / "cache" / "prepared").iterdir() if path.is_dir())
    return folder


def all_features(dataset):
    return dataset.features(np.arange(dataset.num_rows))


def assert_same(left, right):
    for name, values in all_features(left).items():
        np.testing.assert_array_equal(values, all_features(right)[name])
    np.testing.assert_array_equal(left.rows.item_ids, right.rows.item_ids)
    assert (left.counts, left.width) == (right.counts, right.width)


def test_a_warm_cache_gives_the_same_dataset_without_tokenizing(file, tmp_path, tasks):
    cold = prepared(file, tmp_path)
    assert_same(cold, prepared(file, tmp_path))
    assert tasks.calls == 1


def test_a_warm_cache_imports_neither_seqio_nor_tensorflow_nor_jax(file, tmp_path):
    prepared(file, tmp_path)
    program = f"""
import sys
from tests.helpers.byte_tokenizer import ByteTokenizer
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.data.batches import Batches
from wizardcoder_jax.data.prepare import prepare_data
config = TrainConfig(max_length={MAX_LENGTH}, cache_dir={str(tmp_path / "cache")!r}, batch_size=8)
Batches(prepare_data(config, [{str(file)!r}], ByteTokenizer()).train, 2, 0).batch(0)
print([name for name in ("seqio", "tensorflow", "jax", "wizardcoder_jax.data.seqio_tasks") if name in sys.modules])
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer": ByteTokenizer("2")},
        {"max_length": MAX_LENGTH + 1},
        {"layout": "padded"},
        {"objective": "original"},
        {"validation": ValidationConfig(fraction=0.3)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_data_is_prepared_again_if_a_setting_that_affects_the_rows_changes(file, tmp_path, tasks, changes):
    prepared(file, tmp_path)
    prepared(file, tmp_path, **changes)
    assert tasks.calls == 2


def test_settings_that_do_not_affect_the_rows_share_a_cache_entry(file, tmp_path, tasks):
    prepared(file, tmp_path)
    prepared(file, tmp_path, seed=3, batch_size=16, num_steps=7)
    assert tasks.calls == 1


def test_the_cache_depends_on_the_contents_of_files_but_not_on_their_names(file, tmp_path, tasks):
    prepared(file, tmp_path)
    renamed = file.rename(tmp_path / "other.jsonl")
    prepared(renamed, tmp_path)
    assert tasks.calls == 1
    renamed.write_text(renamed.read_text().replace("write 3", "write three"))
    prepared(renamed, tmp_path)
    assert tasks.calls == 2


def test_data_is_prepared_again_if_the_prompt_template_changes(file, tmp_path, tasks, monkeypatch):
    prepared(file, tmp_path)
    monkeypatch.setattr("wizardcoder_jax.core.instruction_template.RESPONSE_MARK", "### Answer:")
    prepared(file, tmp_path)
    assert tasks.calls == 2


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["tokens.npy", "learns.npy", "train_starts.npy", "manifest.json"])
def test_a_damaged_cache_is_rebuilt(file, tmp_path, tasks, capsys, damage, name):
    configure_logging()
    cold = prepared(file, tmp_path)
    features, counts = (
        all_features(cold),
        cold.counts,
    )  # copied before files are truncated, because reading a truncated memory map is a bus error
    damage(folder_of(tmp_path) / name)
    again = prepared(file, tmp_path)
    assert tasks.calls == 2
    assert "will be rebuilt" in capsys.readouterr().err
    assert again.counts == counts
    for name, values in all_features(again).items():
        np.testing.assert_array_equal(values, features[name])
    prepared(file, tmp_path)
    assert tasks.calls == 2


def test_an_interrupted_preparation_leaves_no_files(file, tmp_path, tasks, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(array_cache, "write_json", interrupt)
        prepared(file, tmp_path)
    assert [path for path in (tmp_path / "cache" / "prepared").iterdir() if path.is_dir()] == []
    prepared(file, tmp_path)
    assert tasks.calls == 2


def test_ctrl_c_during_slow_imports_is_deferred_until_they_have_finished(file, tmp_path, monkeypatch):
    finished = []

    class SlowPackage(types.ModuleType):
        def __getattr__(self, name):
            if name != "seqio_tasks":
                raise AttributeError(name)
            signal.raise_signal(signal.SIGINT)
            finished.append(name)
            return CountingTasks()

    monkeypatch.setitem(sys.modules, "wizardcoder_jax.data", SlowPackage("wizardcoder_jax.data"))
    with pytest.raises(KeyboardInterrupt):
        prepared(file, tmp_path)
    assert finished == ["seqio_tasks"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_leftovers_of_a_killed_preparation_are_removed(file, tmp_path):
    prepared(file, tmp_path)
    folder = folder_of(tmp_path)
    leftover = folder.with_name(f".{folder.name}.killed")
    folder.rename(leftover)
    prepared(file, tmp_path)
    assert not leftover.exists()


def test_concurrent_processes_prepare_the_data_once(file, tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        calls = pool.map(_prepare_in_child, [(str(file), str(tmp_path / "cache"))] * 3, chunksize=1)
    assert sum(calls) == 1
    assert folder_of(tmp_path).is_dir()


def _prepare_in_child(arguments):
    file, cache_dir = arguments
    module = sys.modules["wizardcoder_jax.data.seqio_tasks"] = CountingTasks()
    prepare_data(TrainConfig(max_length=MAX_LENGTH, cache_dir=cache_dir), [file], ByteTokenizer())
    return module.calls


def records(tmp_path, *outputs_and_instructions):
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps({"instruction": i, "output": o}) + "\n" for i, o in outputs_and_instructions))
    return path


def test_counts_describe_what_was_kept_dropped_and_truncated(tmp_path, capsys):
    configure_logging()
    file = records(tmp_path, ("short", "yes"), ("long answer", "y" * 500), ("long prompt " * 100, "no"))
    dataset = prepared(file, tmp_path)
    counts = dataset.counts
    assert (counts.examples, counts.dropped, counts.truncated, counts.rows) == (3, 1, 1, 2)
    assert counts.items == 2
    assert counts.tokens == (all_features(dataset)["segment_ids"] > 0).sum()
    assert counts.supervised_tokens == all_features(dataset)["weights"].sum()
    assert counts.fill == pytest.approx(counts.tokens / (2 * MAX_LENGTH))
    err = capsys.readouterr().err
    assert f"1 of 3 prompts fill max_length {MAX_LENGTH} and are dropped (first: {file}:3)" in err
    assert f"1 of 3 responses are truncated at max_length {MAX_LENGTH}" in err
    assert json.loads((folder_of(tmp_path) / "manifest.json").read_text())["facts"]["train"]["counts"]["dropped"] == 1


def test_loss_weights_cover_the_response_and_its_end_token(tmp_path):
    dataset = prepared(records(tmp_path, ("say <|endoftext|> twice", "a<|endoftext|>b")), tmp_path)
    features = all_features(dataset)
    supervised = features["targets"][features["weights"]]
    assert supervised.tolist() == [ord("a") + 1, 0, ord("b") + 1, 0]
    prompt_end = features["tokens"][0, int(np.argmax(features["weights"][0]))]
    assert prompt_end == ord(":") + 1


@pytest.mark.parametrize(("spare", "expected"), [(0, None), (1, "x"), (3, "xyz"), (4, "xyz\0")])
def test_a_response_is_truncated_at_max_length_starting_with_the_end_token(tmp_path, spare, expected):
    file = records(tmp_path, ("i", "xyz"), ("", ""))
    file.write_text(file.read_text().splitlines()[0] + "\n")
    prompt_length = len(next(tokenize_plainly(read_examples([str(file)]), ByteTokenizer()))[0]) - 4
    if expected is None:
        with pytest.raises(InputError, match=r"every prompt fills max_length .*records\.jsonl:1.*--max-length"):
            prepared(file, tmp_path, max_length=prompt_length + spare)
        return
    features = all_features(prepared(file, tmp_path, max_length=prompt_length + spare))
    text = "".join(chr(max(token - 1, 0)) for token in features["targets"][features["weights"]])
    assert text == expected


def test_a_cache_folder_that_cannot_be_created_is_named_in_the_error(file, tmp_path):
    (tmp_path / "blocked").write_text("a file, not a folder")
    with pytest.raises(InputError, match=r"blocked.*choose another"):
        prepared(file, tmp_path, cache_dir=str(tmp_path / "blocked"))


def test_a_cache_in_an_object_store_is_refused(file, tmp_path):
    with pytest.raises(InputError, match=r"local folder, not gs://bucket"):
        prepared(file, tmp_path, cache_dir="gs://bucket/cache")


def test_a_truncated_gzip_file_is_named_in_the_error(tmp_path):
    import gzip

    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"instruction": "x", "output": "y"}\n' * 100)[:-20])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz: the file is damaged or incomplete"):
        prepared(path, tmp_path)


def test_arrays_are_memory_mapped_and_read_only(file, tmp_path):
    dataset = prepared(file, tmp_path)
    for array in (dataset.store.tokens, dataset.store.loss_mask, dataset.rows.members):
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable


def test_objective_original_has_one_example_per_row_under_any_layout(file, tmp_path):
    dataset = prepared(file, tmp_path, objective="original", layout="packed")
    assert dataset.num_rows == dataset.counts.items == 20


def test_objective_original_keeps_a_prompt_that_fills_the_row(tmp_path, capsys):
    configure_logging()
    file = records(tmp_path, ("short", "yes"), ("long prompt " * 100, "no"))
    dataset = prepared(file, tmp_path, objective="original")
    assert (dataset.counts.items, dataset.counts.dropped, dataset.rows.num_supervised.tolist()) == (2, 0, [4, 0])
    assert f"1 of 2 prompts fill max_length {MAX_LENGTH} and are kept without a supervised token" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"every prompt fills max_length"):
        prepared(file, tmp_path, objective="original", max_length=64)


def test_equal_fingerprints_mean_equal_data(file, tmp_path):
    first, again, other = (
        prepare_data(config_of(tmp_path, **changes), [str(file)], ByteTokenizer()).fingerprint
        for changes in ({}, {"seed": 1}, {"max_length": MAX_LENGTH - 1})
    )
    assert first == again != other


@pytest.mark.slow
def test_a_warm_cache_of_a_million_examples_returns_the_batch_of_the_millionth_within_a_second(tmp_path):
    """Each row is one example, so step 1953 with 512 rows contains the millionth example of the epoch."""
    num_examples, length = 1_000_000, 100
    rng = np.random.default_rng(0)
    starts, one_each = np.arange(num_examples + 1), np.arange(num_examples)
    arrays = {
        "tokens": rng.integers(0, 2**16, num_examples * length, np.uint16),
        "learns": np.ones(num_examples * length, bool),
        "starts": starts * length,
        "train_members": one_each,
        "train_item_ids": one_each,
        "train_starts": starts,
        "train_num_tokens": np.full(num_examples, length - 1),
        "train_num_supervised": np.full(num_examples, length - 1),
    }
    counts = dict.fromkeys(("examples", "items", "rows"), num_examples) | {"dropped": 0, "truncated": 0, "fill": 1.0}
    counts |= dict.fromkeys(("tokens", "supervised_tokens"), num_examples * (length - 1))
    file = tmp_path / "data.jsonl"
    with file.open("w") as out:  # a file of realistic size, because it is hashed too
        out.writelines(["x" * 400 + "\n"] * num_examples)
    config, tokenizer = config_of(tmp_path), ByteTokenizer()
    made = array_cache.CachedArrays(arrays=arrays, facts={"train": {"width": MAX_LENGTH, "counts": counts}})
    key = cache_key(config, [array_cache.hash_file(str(file))], tokenizer)
    array_cache.load_or_build(config.cache_dir, key, lambda: made)
    began = time.perf_counter()
    batches = Batches(prepare_data(config, [str(file)], tokenizer).train, 512, seed=0)
    batch = batches.batch(10**6 // 512)
    elapsed_s = time.perf_counter() - began
    row = batches.rows(10**6 // 512)[10**6 % 512]
    np.testing.assert_array_equal(batch["tokens"][10**6 % 512, : length - 1], arrays["tokens"][row * length :][: length - 1])
    assert elapsed_s < 1, elapsed_s
