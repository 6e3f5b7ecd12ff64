"""Code Alpaca, the complete seed data of WizardCoder. Imports seqio and TensorFlow, which takes many seconds."""

import numpy as np
import pytest

from tests.helpers.shared_data import DATA_DIR
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.instruction_template import with_input, wizardcoder_prompt
from wizardcoder_jax.data.batches import Batches
from wizardcoder_jax.data.instruction_records import read_examples
from wizardcoder_jax.data.prepare import prepare_data
from wizardcoder_jax.hf.model_source import ModelSource

DATA = DATA_DIR
FILE = DATA / "codealpaca" / "code_alpaca_20k.json.gz"


@pytest.mark.slow
@pytest.mark.skipif(not FILE.exists(), reason="no WIZARDCODER_DATA")
def test_code_alpaca_fills_98_percent_of_rows_of_2048_and_no_example_is_lost(tmp_path):
    tokenizer = ModelSource("smollm2-135m-instruct").tokenizer
    data = prepare_data(TrainConfig(cache_dir=str(tmp_path)), [str(FILE)], tokenizer).train
    assert data.width == 2048
    assert data.counts.fill >= 0.98
    examples = read_examples([str(FILE)])
    texts = [wizardcoder_prompt(with_input(example.instruction, example.input)) for example in examples]
    num_prompt = sum(map(len, tokenizer.encode_batch(texts)))
    num_response = sum(map(len, tokenizer.encode_batch([example.output for example in examples]))) + len(examples)
    assert data.counts.items == len(examples) == 20_022
    assert data.counts.tokens == num_prompt + num_response - len(examples)  # the last token of each example is not an input
    assert data.counts.supervised_tokens == num_response
    batches = Batches(data, 1, seed=0)
    consumed = np.concatenate([batches.example_ids(step) for step in range(data.num_rows)])
    assert sorted(consumed.tolist()) == list(range(20_022))
