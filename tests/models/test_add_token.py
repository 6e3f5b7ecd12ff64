"""Adding [PAD] as WizardCoder's training script does, and the padding rows of the embedding."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.helpers import tiny_models
from tests.helpers.processes import REPOSITORY
from wizardcoder_jax import export, train
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.hf.model_source import ModelSource
from wizardcoder_jax.inference.request import BatchSamplingParams, SamplingParams, SamplingSteps
from wizardcoder_jax.inference.token_selection import select_tokens
from wizardcoder_jax.models.add_token import add_token
from wizardcoder_jax.models.transformer import Transformer
from wizardcoder_jax.training.train_step import new_state

STARCODER_SIZES = {"vocab_size": 49152, "n_embd": 16, "n_head": 2, "n_layer": 1, "n_inner": 16, "n_positions": 64}


def resize_like_the_original(model):
    """Initialize the new token's rows with the mean of the others, in the embedding and in the head."""
    model.resize_token_embeddings(model.config.vocab_size + 1, mean_resizing=False)
    with torch.no_grad():
        for table in {id(t.weight): t.weight for t in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
            table[-1] = table[:-1].mean(dim=0)
    return model


@pytest.mark.parametrize(
    "make",
    [lambda: tiny_models.gpt_bigcode(**STARCODER_SIZES), lambda: tiny_models.llama(vocab_size=383)],
    ids=["tied", "untied"],
)
def test_the_padding_token_gets_the_next_id_and_the_mean_row(make, tmp_path):
    theirs, ours = resize_like_the_original(make()), tiny_models.ours(make(), tmp_path)
    token_id = theirs.config.vocab_size - 1
    grown = add_token(ours, token_id, make_mesh("1x1"))
    assert grown.arch.vocab_size == token_id + 1
    tables = {"input": grown.tokens, "output": grown.head_table}
    expected = {"input": theirs.get_input_embeddings().weight, "output": theirs.get_output_embeddings().weight}
    for kind, table in tables.items():
        table = np.asarray(table[...])
        assert table.shape[0] == grown.arch.padded_vocab_size
        np.testing.assert_allclose(table[: token_id + 1], expected[kind].detach().numpy(), rtol=0, atol=1e-6)
        assert not table[token_id + 1 :].any()


def test_starcoders_vocabulary_grows_to_49153(tmp_path):
    ours = tiny_models.ours(tiny_models.gpt_bigcode(**STARCODER_SIZES), tmp_path)
    mesh = make_mesh("1x1")
    grown = add_token(ours, 49152, mesh)
    assert grown.arch.vocab_size == 49153
    state = new_state(grown, TrainConfig(), mesh, RULES["fsdp"])
    assert state.trained["tokens"].shape == (49408, 16)
    assert sum(leaf.shape == (49408, 16) for leaf in jax.tree.leaves(state.opt_state)) == 2


def test_a_token_with_an_unused_row_takes_that_row(tmp_path):
    ours = tiny_models.ours(tiny_models.llama(), tmp_path)
    grown = add_token(ours, 370, make_mesh("1x1"))
    assert grown.arch == ours.arch
    np.testing.assert_allclose(grown.tokens[370], ours.tokens[:370].mean(axis=0), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(grown.tokens[371:], ours.tokens[371:])


@pytest.mark.parametrize(("flags", "added"), [((), True), pytest.param(("--pad-token", "None"), False, marks=pytest.mark.slow)])
def test_training_adds_the_token_and_export_keeps_it(tmp_path, flags, added):
    size = tiny_models.train_tokenizer().get_vocab_size()
    tiny_models.save_folder(tiny_models.gpt_bigcode(vocab_size=size), tmp_path / "base")
    record = {"instruction": "Add two numbers.", "output": "def add(a, b):\n    return a + b\n"}
    (tmp_path / "data.jsonl").write_text(json.dumps(record) + "\n")
    paths = ["--base", tmp_path / "base", "--data", tmp_path / "data.jsonl", "--output-dir", tmp_path / "run"]
    preset = ["--config", REPOSITORY / "configs/tiny.py", "--max-length", "128", "--num-steps", "1", "--cache-dir", tmp_path]
    train.main(list(map(str, [*preset, *paths, *flags])))
    export.main(["--checkpoint", str(tmp_path / "run"), "--output", str(tmp_path / "out")])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.config.vocab_size == len(tokenizer) == size + added
    assert model.get_input_embeddings().weight.shape[0] == size + added
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == (("[PAD]", size) if added else (None, None))
    assert model.generation_config.pad_token_id == (size if added else None)
    assert tokenizer("[PAD]")["input_ids"] == [size] if added else len(tokenizer("[PAD]")["input_ids"]) > 1


def test_an_existing_padding_token_is_kept(tmp_path):
    folder = tiny_models.save_folder(tiny_models.gpt_bigcode(), tmp_path / "model")
    settings = {"eos_token": tiny_models.EOS, "pad_token": tiny_models.FIM}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = ModelSource(str(folder)).tokenizer
    assert tokenizer.with_pad_token("[PAD]") is tokenizer
    assert tokenizer.pad_id == 1
    assert open_model(str(folder)).tokenizer.fingerprint == tokenizer.fingerprint


def test_padding_rows_of_the_embedding_are_never_sampled(tmp_path):
    """10^5 draws at temperature 2, with weights that would nearly always select padding rows."""
    ours = tiny_models.ours(tiny_models.gpt_bigcode(vocab_size=393), tmp_path)
    ours.tokens.set_value(ours.tokens[...].at[393:].set(100.0))

    @jax.jit
    def draw(model: Transformer, key: jax.Array) -> jax.Array:
        hidden = jnp.abs(jax.random.normal(key, (1000, 32)))
        logits, hot = model.logits(hidden), SamplingParams(temperature=2.0)
        options = jax.tree.map(lambda number: jnp.repeat(number, 1000), BatchSamplingParams.from_params(hot, logits.shape[1]))
        draw = lambda attempt: jax.random.uniform(jax.random.fold_in(key, attempt), (1000,))  # noqa: E731
        return select_tokens(logits, jnp.zeros(logits.shape, bool), draw, options, SamplingSteps.required_by([hot]))

    drawn = np.concatenate([draw(ours, jax.random.key(i)) for i in range(100)])
    assert len(drawn) == 100_000
    assert drawn.max() < 393
    assert len(np.unique(drawn)) > 300
