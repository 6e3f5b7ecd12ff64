"""Fill-in-the-middle prompts equal those of each family's reference, also with the `sample` command."""

import json
import sys

import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from transformers import LlamaTokenizer

from tests.helpers import model_server, tiny_models
from wizardcoder_jax import sample
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.inference.fim import fim_end_ids, fim_prompt

GAPS = [
    ("def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"),
    ("", " x"),
    ("x ", ""),
    ("", ""),
    ("é", "  é 🦙"),
    ("a", "(b"),
]
DEEPSEEK = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")  # noqa: RUF001
BYTE_LEVEL = {  # family -> the tokens, and the prompt that its documentation gives
    "starcoder": (("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), "<fim_prefix>{}<fim_suffix>{}<fim_middle>"),
    "santacoder": (("<fim-prefix>", "<fim-suffix>", "<fim-middle>"), "<fim-prefix>{}<fim-suffix>{}<fim-middle>"),
    "qwen": (("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"), "<|fim_prefix|>{}<|fim_suffix|>{}<|fim_middle|>"),
    "deepseek": ((*DEEPSEEK, "<s>"), "<s>" + "{}".join(DEEPSEEK)),
}


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_a_byte_level_prompt_equals_the_text_in_the_documentation(family):
    names, text = BYTE_LEVEL[family]
    backend = tiny_models.train_tokenizer()
    backend.add_special_tokens(list(names))
    special = {"eos_token": tiny_models.EOS, **({"bos_token": "<s>"} if "<s>" in names else {})}
    tokenizer = Tokenizer(backend, special, None)
    for prefix, suffix in GAPS:
        prompt = fim_prompt(tokenizer, tokenizer.encode(prefix), suffix)
        assert list(prompt) == tokenizer.encode(text.format(prefix, suffix))
    assert fim_end_ids(tokenizer) == ()


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    """Folder of a SentencePiece model with LLaMA's settings."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    texts = [line for prefix, suffix in GAPS for line in f"{prefix}{suffix} def return print".splitlines() if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 20),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=320,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    return folder


def test_a_codellama_prompt_equals_its_reference_whose_suffix_begins_without_a_space(sentencepiece_model):
    theirs = sentencepiece.SentencePieceProcessor(str(sentencepiece_model / "tokenizer.model"))
    proto = sentencepiece_model_pb2.ModelProto.FromString((sentencepiece_model / "tokenizer.model").read_bytes())
    proto.normalizer_spec.add_dummy_prefix = False
    bare = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    backend = LlamaTokenizer.from_pretrained(sentencepiece_model, add_bos_token=True).backend_tokenizer
    names = ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>")
    backend.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in names])
    tokenizer = Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>"}, None)
    pre, suf, mid, eot = map(backend.token_to_id, names)
    spaced = []
    for prefix, suffix in GAPS:
        prompt = fim_prompt(tokenizer, tokenizer.encode(prefix), suffix)
        assert list(prompt) == [1, pre, *theirs.encode(prefix), suf, *bare.encode(suffix), mid]
        spaced.append(theirs.encode(suffix) != bare.encode(suffix))
    assert any(spaced)
    assert fim_end_ids(tokenizer) == (eot,)


def test_a_model_without_fill_in_the_middle_tokens_refuses_a_suffix():
    tokenizer = Tokenizer(tiny_models.train_tokenizer(), {"eos_token": tiny_models.EOS}, None)
    with pytest.raises(InputError, match="this model has no fill-in-the-middle tokens"):
        fim_prompt(tokenizer, [5], "x")
    assert fim_end_ids(tokenizer) == ()


def arguments(folder, tmp_path, rows, *more):
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = {"--prompts": tmp_path / "prompts.jsonl", "--output": tmp_path / "out.jsonl", "--cache-dir": tmp_path / "cache"}
    return ["--model", str(folder), "--max-length", "100", *(str(part) for pair in named.items() for part in pair), *more]


def test_fill_in_the_middle_rows_are_sampled_next_to_instructions(tmp_path):
    folder = model_server.endless_model(tmp_path / "model", fim=True)
    rows = [{"prefix": "def f(", "suffix": "): pass", "id": "gap"}, {"instruction": "Add."}, {"prefix": "", "suffix": ""}]
    sample.main(arguments(folder, tmp_path, rows))
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["task_id"] for row in found] == ["gap", "1", "2"]
    [first] = [row for row in found if row["task_id"] == "gap"]
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), {"eos_token": tiny_models.EOS}, None)
    assert first["num_tokens"] == 100 - len(tokenizer.encode("<fim_prefix>def f(<fim_suffix>): pass<fim_middle>"))

    written = (tmp_path / "out.jsonl").read_bytes()
    sample.main(arguments(folder, tmp_path, [{**rows[0], "suffix": "): ..."}, *rows[1:]]))
    assert (tmp_path / "out.jsonl").read_bytes() != written


@pytest.mark.parametrize(
    ("row", "more", "message"),
    [
        ({"prefix": "a"}, [], 'prompts.jsonl:1: a fill-in-the-middle row needs both "prefix" and "suffix"'),
        ({"prefix": 1, "suffix": "b"}, [], 'prompts.jsonl:1: a fill-in-the-middle row needs both "prefix" and "suffix"'),
        ({"prefix": "a", "suffix": "b"}, [], "this model has no fill-in-the-middle tokens"),
        ({"prefix": "a", "suffix": "b"}, ["--model", "api:m"], "prompts.jsonl:1: fill-in-the-middle rows need a local model"),
    ],
)
def test_an_unusable_fill_in_the_middle_row_is_reported_in_one_line(tmp_path, monkeypatch, capsys, row, more, message):
    folder = tiny_models.save_folder(tiny_models.llama(), tmp_path / "model")
    monkeypatch.setattr(sys, "argv", ["sample", *arguments(folder, tmp_path, [row]), *more])
    with pytest.raises(SystemExit) as stop:
        run_command(sample.main)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.jsonl").exists()
