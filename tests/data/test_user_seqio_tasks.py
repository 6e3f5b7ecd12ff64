"""User-defined Tasks and Mixtures. Imports seqio and TensorFlow, which takes many seconds."""

import importlib
import itertools
import sys

import numpy as np
import pytest

from tests.helpers.byte_tokenizer import ByteTokenizer, tokenize_plainly
from wizardcoder_jax.config import TrainConfig, ValidationConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.logging_setup import configure_logging
from wizardcoder_jax.data.batches import Batches
from wizardcoder_jax.data.instruction_records import read_example
from wizardcoder_jax.data.prepare import prepare_data

HEADER = """
import seqio
import tensorflow as tf

def register(name, records, features, splits=("train",)):
    signature = {key: tf.TensorSpec(shape, dtype) for key, (shape, dtype) in features.items()}

    def source(split, shuffle_files, seed=None):
        return tf.data.Dataset.from_generator(lambda: iter(records), output_signature=signature)

    ids = seqio.PassThroughVocabulary(1000)
    outputs = {
        key: seqio.Feature(ids, add_eos=False, dtype=dtype, rank=len(shape)) for key, (shape, dtype) in features.items()
    }
    functions = seqio.FunctionDataSource(source, splits=splits)
    seqio.TaskRegistry.add(name, source=functions, preprocessors=[], output_features=outputs)

TEXT, IDS = ([], tf.string), ([None], tf.int32)
TEXTS = {"instruction": TEXT, "input": TEXT, "output": TEXT}
PAIRS = {"inputs": IDS, "targets": IDS}
MASKS = {"tokens": IDS, "weights": IDS}

def texts(name, count):
    records = [{"instruction": f"write {i}", "input": "in" * (i % 2), "output": f"{name}{i}"} for i in range(count)]
    register(name, records, TEXTS)

def pairs(name, count, prompt=1):
    register(name, [{"inputs": [5] * (i % 9 + prompt), "targets": [i % 100, 0]} for i in range(count)], PAIRS)
"""


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Return a function that writes a user module to the current folder and returns a config for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    names = (f"users_tasks_{i}" for i in itertools.count())

    def write(body, name="it", **changes):
        import seqio

        for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
            registry.reset()
        module = next(names)
        sys.modules.pop(module, None)
        (tmp_path / f"{module}.py").write_text(HEADER + body)
        importlib.invalidate_caches()
        return TrainConfig(**{"task": f"{module}:{name}", "max_length": 300, "cache_dir": str(tmp_path / "cache"), **changes})

    return write


def prepared(config):
    return prepare_data(config, [], ByteTokenizer())


def segments(dataset):
    """Return item id -> (tokens, targets, weights) of its segment."""
    features, found = dataset.features(np.arange(dataset.num_rows)), {}
    for r in range(dataset.num_rows):
        for segment, item in enumerate(dataset.examples_in(r).tolist(), start=1):
            slots = features["segment_ids"][r] == segment
            assert item not in found
            found[item] = [features[name][r][slots].tolist() for name in ("tokens", "targets", "weights")]
    return found


def test_texts_get_our_prompt_template_and_tokenizer(task):
    found = segments(prepared(task("texts('it', 5)")).train)
    records = [{"instruction": f"write {i}", "input": "in" * (i % 2), "output": f"it{i}"} for i in range(5)]
    expected = tokenize_plainly([read_example("", record) for record in records], ByteTokenizer())
    for i, (tokens, weights) in enumerate(expected):
        assert found[i] == [tokens[:-1].tolist(), tokens[1:].tolist(), weights[1:].astype(bool).tolist()]


def test_pairs_of_ids_are_prompt_and_response_without_additions(task):
    body = "register('it', [{'inputs': [7, 0], 'targets': [0, 9]}, {'inputs': [1], 'targets': [2]}], PAIRS)"
    found = segments(prepared(task(body)).train)
    assert found == {0: [[7, 0, 0], [0, 0, 9], [False, True, True]], 1: [[1], [2], [True]]}


def test_weights_may_have_any_pattern(task):
    found = segments(prepared(task("register('it', [{'tokens': [4, 0, 6, 7, 8], 'weights': [1, 0, 1, 0, 1]}], MASKS)")).train)
    assert found == {0: [[4, 0, 6, 7], [0, 6, 7, 8], [False, True, False, True]]}


def test_ids_are_truncated_at_max_length_and_dropped_if_nothing_is_supervised(task, capsys):
    configure_logging()
    body = "register('it', [{'inputs': [1] * 3, 'targets': [2] * 9}, {'inputs': [1] * 9, 'targets': [2]}], PAIRS)"
    data = prepared(task(body, max_length=8)).train
    assert segments(data) == {0: [[1, 1, 1, 2, 2, 2, 2], [1, 1, 2, 2, 2, 2, 2], [False, False, *[True] * 5]]}
    assert (data.counts.truncated, data.counts.dropped) == (1, 1)
    assert "are dropped (first: task it, example 1)" in capsys.readouterr().err


MIXTURE = """
pairs('few', 6, prompt=11)
pairs('many', 40)
seqio.MixtureRegistry.add('it', [('few', 1.0), ('many', 2.0)])
"""


def test_a_mixture_keeps_its_rates_and_every_segment_has_a_unique_id(task, capsys):
    configure_logging()
    data = prepared(task(MIXTURE)).train
    items = segments(data)
    assert len(items) == data.counts.items == 60
    records = [item % 46 for item in items]
    assert sorted(record for record in records if record >= 6) == list(range(6, 46))  # the large task occurs once
    small = np.bincount([record for record in records if record < 6], minlength=6)
    assert small.sum() == 20 and set(small) == {3, 4}
    assert data.counts.examples == 46
    err = capsys.readouterr().err
    assert "task few: 6 examples, 3.333 times per epoch (20 of 60)" in err
    assert "task many: 40 examples, 1 times per epoch (40 of 60)" in err
    batches = Batches(data, 1, seed=0)
    consumed = np.concatenate([batches.example_ids(step) for step in range(data.num_rows)])
    assert sorted(consumed.tolist()) == sorted(items)


def test_the_repeats_of_a_mixture_depend_on_the_seed(task):
    draws = [sorted(segments(prepared(task(MIXTURE, seed=seed)).train)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_the_validation_set_of_a_mixture_contains_each_record_once(task):
    both = prepared(task(MIXTURE, validation=ValidationConfig(fraction=0.3)))
    train, validation = (segments(side) for side in (both.train, both.validation))
    assert not {item % 46 for item in train} & set(validation)
    assert {item % 46 for item in train} | set(validation) == set(range(46))
    sizes = [sum(item % 46 < 6 for item in train), sum(item % 46 >= 6 for item in train)]
    assert abs(sizes[0] - sizes[1] / 2) <= 0.5


def test_nested_mixtures_and_rates_given_as_functions_follow_seqio(task):
    body = """
texts('a', 4), texts('b', 8), texts('c', 12)
seqio.MixtureRegistry.add('inner', [('a', lambda task: 1.0), ('b', 1.0)])
seqio.MixtureRegistry.add('it', [('inner', 2.0), ('c', 1.0)])
"""
    records = np.array([item % 24 for item in segments(prepared(task(body)).train)])
    assert [(records < 4).sum(), ((records >= 4) & (records < 12)).sum(), (records >= 12).sum()] == [12, 12, 12]


def test_seed_ids_and_ids_of_a_task_decide_the_split(task):
    body = """
features = {**PAIRS, 'id': TEXT, 'seed_id': TEXT}
register('it', [{'inputs': [i], 'targets': [i, 3], 'id': f'e{i}', 'seed_id': f's{i % 10}'} for i in range(100)], features)
"""
    both = prepared(task(body, validation=ValidationConfig(fraction=0.3)))
    sides = [{item % 10 for item in segments(side)} for side in (both.train, both.validation)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_changed_data_of_a_task_is_never_taken_from_the_cache(task, tmp_path):
    body = "import pathlib\nregister('it', [{'inputs': [1], 'targets': [int(pathlib.Path('n').read_text())]}], PAIRS)"
    (tmp_path / "n").write_text("3")
    first, again = (prepared(task(body)) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    (tmp_path / "n").write_text("4")
    changed = prepared(task(body))
    assert changed.fingerprint != first.fingerprint
    assert segments(changed.train)[0][1] == [4]


BAD = {
    "no colon": ("", {"task": "module"}, "task 'module' must be MODULE:NAME"),
    "no module": ("", {"task": "users_missing:it"}, "cannot find module users_missing .*PYTHONPATH"),
    "no module in a package": ("", {"task": "seqio.missing:it"}, "cannot find module seqio.missing"),
    "a module that needs another": ("import users_missing_too", {}, "imports users_missing_too, which is not installed"),
    "a module that fails": ("1 / 0", {}, "fails: ZeroDivisionError: division by zero"),
    "no such name": ("texts('a', 1), pairs('b', 1)", {}, "registers no Task or Mixture it with seqio; found a, b"),
    "no train split": ("register('it', [], PAIRS, splits=['test'])", {}, r"task it has no split 'train' \(it has test\)"),
    "other features": (
        "register('it', [], {'text': TEXT})",
        {},
        "task it yields the features text; it must yield instruction and output, or inputs",
    ),
    "features that differ within a mixture": (
        "texts('a', 2), pairs('b', 2)\nseqio.MixtureRegistry.add('it', [('a', 1), ('b', 1)])",
        {},
        "fails: ValueError: Mixture, 'it' contains Tasks with different output features: a: .*input.* b: .*targets",
    ),
    "no records": ("texts('it', 0)", {}, "task it yields no example"),
    "an empty task in a mixture": (
        "texts('a', 2), texts('b', 0)\nseqio.MixtureRegistry.add('it', [('a', 1), ('b', 1)])",
        {},
        "task b yields no examples; .* remove it from the mixture",
    ),
    "a task of a mixture that is all too long": (
        "pairs('a', 2, prompt=20), pairs('b', 2)\nseqio.MixtureRegistry.add('it', [('a', 1), ('b', 1)])",
        {"max_length": 20},
        "task a of mixture users_tasks_0:it has no example left to train on .of 2.",
    ),
    "a negative rate": ("texts('a', 2)\nseqio.MixtureRegistry.add('it', [('a', -1)])", {}, "the rate of task a is -1.0"),
    "no rate": ("texts('a', 2)\nseqio.MixtureRegistry.add('it', [('a', 0)])", {}, "no task with a rate above 0"),
    "an id too large": (
        "register('it', [{'inputs': [1], 'targets': [2]}, {'inputs': [1], 'targets': [257]}], PAIRS)",
        {},
        "task it, example 1: 'targets' contains id 257, but the model's tokenizer has ids 0 to 256",
    ),
    "a negative id": ("register('it', [{'inputs': [-1], 'targets': [2]}], PAIRS)", {}, "example 0: 'inputs' contains id -1"),
    "texts for ids": (
        "register('it', [{'inputs': 'a', 'targets': 'b'}], {'inputs': TEXT, 'targets': TEXT})",
        {},
        "'inputs' must be a list of token ids",
    ),
    "ids for texts": (
        "register('it', [{'instruction': [1], 'output': [1]}], {'instruction': IDS, 'output': IDS})",
        {},
        "task it, example 0: 'instruction' must be a string",
    ),
    "no UTF-8": (
        r"register('it', [{'instruction': b'\xff', 'output': 'a'}], {'instruction': TEXT, 'output': TEXT})",
        {},
        "example 0: 'instruction' is not valid UTF-8 at byte 0",
    ),
    "other weights": (
        "register('it', [{'tokens': [1, 2], 'weights': [0, 3]}], MASKS)",
        {},
        "example 0: 'weights' must contain a 0 or a 1 for each of the 2 tokens",
    ),
    "too few weights": ("register('it', [{'tokens': [1, 2], 'weights': [1]}], MASKS)", {}, "'weights' must contain a 0 or a 1"),
    "a task that fails midway": (
        "def records():\n  yield {'inputs': [1], 'targets': [2]}\n  raise OSError('disk gone')\n"
        "class Records:\n  def __iter__(self): return records()\nregister('it', Records(), PAIRS)",
        {},
        "task it fails at example 1: .*",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_task_is_one_clear_error(task, case):
    body, changes, complaint = BAD[case]
    with pytest.raises(InputError, match=complaint) as caught:
        prepared(task(body, **changes))
    assert "\n" not in str(caught.value)
