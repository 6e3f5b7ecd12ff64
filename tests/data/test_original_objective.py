"""The objective "original" equals the published script, whose logic is reimplemented here with transformers' tokenizers.

Source: nlpxucan/WizardLM @cd4b4cc, WizardCoder/src/train_wizardcoder.py: _tokenize_fn, preprocess, train_tokenize_function.
"""

import json

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from tests.helpers.many_texts import CODE_ALPACA
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.data.prepare import prepare_data
from wizardcoder_jax.data.tokenization import tokenize_original, tokenize_token_mean
from wizardcoder_jax.hf.model_source import ModelSource
from wizardcoder_jax.hf.tokenizer import tokenizer_from_folder

IGNORED = -100
TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
ODD = [
    {"instruction": "What is <|endoftext|> and </s> and <s>?", "input": "", "output": "An <|endoftext|> or </s>."},
    {"instruction": "Pad with [PAD] and [PAD].", "input": "", "output": " [PAD]"},
    {"instruction": "Say nothing.", "input": "", "output": ""},
]


@pytest.fixture(scope="module")
def rows():
    if not CODE_ALPACA.exists():
        pytest.skip("no WIZARDCODER_DATA")
    return [*json.loads(CODE_ALPACA.read_text())[:1000], *ODD]


def source_of(row):
    """Return the script's prompt; a non-empty input is joined to the instruction, as in the authors' data."""
    return TEMPLATE.format(instruction=f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"])


def published(rows, tokenizer, max_length):
    """Yield (input_ids, labels) of each row."""
    tokenizer.model_max_length = max_length

    def ids_of(text):
        return tokenizer(text, return_tensors="pt", padding="longest", max_length=max_length, truncation=True).input_ids[0]

    for row in rows:
        source = source_of(row)
        ids = ids_of(f"{source}{row['output']}{tokenizer.eos_token}")
        labels = ids.clone()
        labels[: ids_of(source).ne(tokenizer.pad_token_id).sum()] = IGNORED
        yield ids.numpy(), labels.numpy()


def save(folder, backend, **config):
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"clean_up_tokenization_spaces": False, **config}))
    return transformers.AutoTokenizer.from_pretrained(folder)


def texts_of(rows):
    return [f"{source_of(row)}{row['output']}" for row in rows]


def byte_level(folder, rows):
    """Train a byte-level BPE without word boundaries, which may merge the prompt's colon with the start of the response."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False, max_token_length=8
    )
    # Trained on short texts around the boundary: on whole texts, training is slow if merges may cross words.
    backend.train_from_iterator([f"Response:{row['output'][:12]}" for row in rows], trainer)
    return save(folder, backend, tokenizer_class="PreTrainedTokenizerFast", eos_token="<|endoftext|>")


def llama(folder, rows, single="<s> $A"):
    """Train a tokenizer like Llama's: SentencePiece's space marks, byte fallback, and a BOS token added to each text."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=pieces, show_progress=False, max_token_length=8)
    backend.train_from_iterator([f"Response:{row['output'][:12]}" for row in rows], trainer)
    backend = tokenizers.Tokenizer.from_str(_bytes_unmarked(backend.to_str()))
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    # Use the tokenizer as defined in its file, as transformers 4 did: in version 5, LlamaTokenizer adds further space marks.
    return save(folder, backend, tokenizer_class="PreTrainedTokenizerFast", **special)


def _bytes_unmarked(text):
    """Make byte pieces ordinary tokens, as in Llama's file; the trainer accepts them only as special tokens."""
    content = json.loads(text)
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    return json.dumps(content)


def bos_and_eos(folder, rows):
    """Return a tokenizer that adds BOS and EOS to each text, even if the text is truncated."""
    return llama(folder, rows, "<s> $A </s>")


def smollm2(folder, rows):
    for name, text in ModelSource("smollm2-135m-instruct").tokenizer.to_files().items():
        (folder / name).write_text(text)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "make", [bos_and_eos, smollm2, *(pytest.param(make, marks=pytest.mark.slow) for make in (byte_level, llama))]
)
def test_ids_and_labels_equal_the_published_scripts_on_a_thousand_rows(rows, tmp_path, make):
    theirs = make(tmp_path, rows)
    if theirs.pad_token is None:
        theirs.add_special_tokens({"pad_token": "[PAD]"})
    ours = tokenizer_from_folder(str(tmp_path), None).with_pad_token("[PAD]")
    assert theirs.pad_token_id == ours.pad_id
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    lengths = [len(theirs(text).input_ids) for text in texts_of(rows)]
    for max_length in (max(lengths) + 8, int(np.quantile(lengths, 0.4))):
        config = TrainConfig(objective="original", max_length=max_length, cache_dir=str(tmp_path / "cache"))
        data = prepare_data(config, [str(file)], ours).train
        features = data.features(np.arange(data.num_rows))
        assert data.num_rows == len(rows)
        found = {"ends": 0, "unlabelled": 0, "crossed": 0}
        for i, (ids, labels) in enumerate(published(rows, theirs, max_length)):
            n = len(ids) - 1  # the script's model predicts each id from the previous ones
            np.testing.assert_array_equal(features["tokens"][i, :n], ids[:-1])
            np.testing.assert_array_equal(features["targets"][i, :n], ids[1:])
            np.testing.assert_array_equal(np.where(features["weights"][i, :n], ids[1:], IGNORED), labels[1:])
            assert not features["weights"][i, n:].any() and (features["segment_ids"][i] > 0).sum() == n
            found["unlabelled"] += (labels == IGNORED).all()
            found["ends"] += ids[-1] == theirs.eos_token_id
            alone = theirs(source_of(rows[i])).input_ids
            found["crossed"] += alone != ids[: len(alone)].tolist() and len(alone) < n
        assert list(data.examples_in(len(rows) - 1)) == [len(rows) - 1]
        if max_length < max(lengths):
            assert found["unlabelled"] > 20 and data.counts.truncated > 500
            assert found["ends"] == (len(rows) if make is bos_and_eos else len(rows) - data.counts.truncated)
        elif make in (byte_level, llama):
            assert found["crossed"] > 100  # merges at the boundary, where the mask shifts by one


def test_a_merge_at_the_boundary_masks_the_first_token_of_the_response(tmp_path):
    vocabulary = {"<e>": 0, ":": 1, "\n": 2, ":\n": 3, "x": 4, "\nx": 5}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [(":", "\n"), ("\n", "x")]))
    backend.add_special_tokens(["<e>"])
    save(tmp_path, backend, tokenizer_class="PreTrainedTokenizerFast", eos_token="<e>")
    tokenizer = tokenizer_from_folder(str(tmp_path), None)
    (joint,) = tokenize_original([":"], ["\nx"], tokenizer, 8)
    assert (joint.tokens.tolist(), joint.loss_mask.tolist()) == ([3, 4, 0], [False, True, True])
    (apart,) = tokenize_token_mean([":"], ["\nx"], tokenizer, 8)
    assert (apart.tokens.tolist(), apart.loss_mask.tolist()) == ([1, 5, 0], [False, True, True])
