import json
import sys
import types

import numpy as np
import pytest

from tests.helpers.byte_tokenizer import ByteTokenizer
from wizardcoder_jax.config import TrainConfig, ValidationConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.instruction_template import with_input, wizardcoder_prompt
from wizardcoder_jax.data.prepare import prepare_data
from wizardcoder_jax.data.tokenization import TOKENIZATIONS
from wizardcoder_jax.data.validation_split import is_held_out

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    """Replace seqio_tasks, which takes many seconds to import, with a fake."""

    def tokenize_instructions(examples, tokenizer, objective, max_length):
        texts = [wizardcoder_prompt(with_input(e.instruction, e.input)) for e in examples]
        return TOKENIZATIONS[objective].tokenize(texts, [e.output for e in examples], tokenizer, max_length)

    module = types.ModuleType("wizardcoder_jax.data.seqio_tasks")
    module.tokenize_instructions = tokenize_instructions
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("wizardcoder_jax.data.seqio_tasks", module, raising=False)


def record(i, **more):
    return {"instruction": f"write {i}", "output": f"response {i}", **more}


def split(tmp_path, records, fraction=0.3, **changes):
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    validation = ValidationConfig(fraction=fraction)
    config = TrainConfig(max_length=256, cache_dir=str(tmp_path / "cache"), validation=validation, **changes)
    return prepare_data(config, [str(file)], ByteTokenizer())


def responses(dataset):
    """Return the supervised texts of all rows, sorted."""
    features, found = dataset.features(np.arange(dataset.num_rows)), []
    for r in range(dataset.num_rows):
        for segment in range(1, features["segment_ids"][r].max() + 1):
            supervised = features["targets"][r][(features["segment_ids"][r] == segment) & features["weights"][r]]
            found.append("".join(chr(token - 1) for token in supervised[:-1]))
    return sorted(found)


@pytest.mark.parametrize("changes", [{}, {"layout": "padded"}, {"objective": "original"}], ids=["packed", "padded", "original"])
def test_every_record_is_in_exactly_one_set(tmp_path, changes):
    both = split(tmp_path, [record(i) for i in range(100)], **changes)
    train, validation = responses(both.train), responses(both.validation)
    assert sorted(train + validation) == sorted(f"response {i}" for i in range(100))
    assert 15 <= len(validation) <= 45
    assert both.validation.counts.examples == both.validation.counts.items == len(validation)
    assert both.train.counts.examples == len(train)
    assert both.train.store.tokens is both.validation.store.tokens


def test_without_a_fraction_no_record_is_held_out(tmp_path):
    both = split(tmp_path, [record(i) for i in range(30)], fraction=0.0)
    assert (both.validation, both.train.counts.items) == (None, 30)


def test_the_split_of_a_record_does_not_depend_on_order_seed_or_other_records(tmp_path):
    records = [record(i, id=f"r{i}") for i in range(100)]
    validation = responses(split(tmp_path, records).validation)
    assert responses(split(tmp_path, records[::-1], seed=7).validation) == validation
    half = responses(split(tmp_path, records[:50]).validation)
    assert half == sorted(text for text in validation if int(text.split()[1]) < 50)


def test_a_larger_fraction_holds_out_all_records_of_a_smaller_one(tmp_path):
    records = [record(i) for i in range(100)]
    small, large = (responses(split(tmp_path, records, fraction).validation) for fraction in (0.1, 0.4))
    assert set(small) < set(large)


def test_evolutions_of_a_seed_are_in_the_same_set_as_the_seed(tmp_path):
    evolved = [(seed, f"{seed}.{round_}") for seed in range(40) for round_ in range(4)]
    records = [record(name, id=f"e{name}", seed_id=f"s{seed}") for seed, name in evolved]
    records += [record(f"{seed}.seed", id=f"s{seed}") for seed in range(40)]  # the seeds themselves, from their own file
    both = split(tmp_path, records)
    seeds = [{text.split()[1].split(".")[0] for text in responses(side)} for side in (both.train, both.validation)]
    assert seeds[0] and seeds[1] and not seeds[0] & seeds[1]


def test_equal_records_without_ids_are_in_the_same_set(tmp_path):
    both = split(tmp_path, [record(i % 20) for i in range(60)])
    sides = [set(responses(side)) for side in (both.train, both.validation)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_about_the_fraction_of_all_ids_is_held_out():
    held_out = sum(is_held_out(f"record {i}", 0.05) for i in range(20_000))
    assert abs(held_out - 1000) < 4 * (20_000 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize(
    ("fraction", "count", "complaint"),
    [
        (
            0.001,
            3,
            r"validation\.fraction 0\.001 leaves no supervised token in the validation set \(0 of 3 records\); raise it",
        ),
        (0.99999, 3, r"leaves no supervised token in the training set .* lower it"),
    ],
)
def test_an_empty_training_or_validation_set_is_refused(tmp_path, fraction, count, complaint):
    with pytest.raises(InputError, match=complaint):
        split(tmp_path, [record(i) for i in range(count)], fraction)


@pytest.mark.parametrize("objective", ["token_mean", "original"])
def test_a_set_without_supervised_tokens_is_refused(tmp_path, objective):
    records = [record(i) for i in range(40)]
    for entry in records:
        if is_held_out(entry.setdefault("id", entry["instruction"]), 0.3):
            entry["instruction"] *= 50
    with pytest.raises(InputError, match="leaves no supervised token in the validation set"):
        split(tmp_path, records, objective=objective)
