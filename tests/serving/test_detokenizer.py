"""Incremental detokenization: the pieces join to the whole text, and never contain a stop string."""

import random

import pytest
import tokenizers
from tokenizers import decoders, models

from tests.helpers import tiny_models
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.serving.detokenizer import MAX_UNCERTAIN, IncrementalDetokenizer

pytestmark = pytest.mark.quick

TEXTS = [
    "def add(a, b):\n    return a + b",
    "naïve café — “ok” 日本語のテキスト 🦙👩‍👩‍👧‍👦",
    "\t\r\n  \u00a0é" * 40,
    "🦙" * 100,
    "",
]


def byte_level_tokenizer():
    return Tokenizer(tiny_models.train_tokenizer(), {"eos_token": tiny_models.EOS}, None)


def byte_fallback_tokenizer():
    """A tokenizer like Llama's: text pieces with a marker for spaces, and single bytes for all other characters."""
    names = [
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"abcdefgéüñ(),:+",
        *("\u2581" + c for c in "abcdef"),
        "\u2581",
    ]
    backend = tokenizers.Tokenizer(
        models.BPE({name: i for i, name in enumerate(names)}, [], byte_fallback=True, fuse_unk=True, unk_token="</s>")
    )
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return Tokenizer(backend, {"eos_token": "</s>"}, None)


def detokenize(tokenizer, tokens, stops=()):
    """Return the returned strings, and whether a stop string ended the text."""
    detokenizer, pieces = IncrementalDetokenizer(tokenizer.decode, stops), []
    for token in tokens:
        pieces.append(detokenizer.add(token))
        if detokenizer.is_stopped:
            return pieces, True
    return [*pieces, detokenizer.end()], detokenizer.is_stopped


@pytest.mark.parametrize("make", [byte_level_tokenizer, byte_fallback_tokenizer])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text_and_contain_no_split_character(make, text):
    tokenizer = make()
    if make is byte_fallback_tokenizer:
        text = text.replace(" ", "\u2581")
    tokens = tokenizer.encode(text)
    pieces, _ = detokenize(tokenizer, tokens)
    assert "".join(pieces) == tokenizer.decode(tokens)
    assert "\ufffd" not in "".join(pieces)


def test_pieces_of_random_bytes_join_to_the_text_of_the_whole_sequence():
    tokenizer, rng = byte_level_tokenizer(), random.Random(0)
    for _ in range(300):
        tokens = [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randrange(1, 120))]
        assert "".join(detokenize(tokenizer, tokens)[0]) == tokenizer.decode(tokens)


def test_bytes_that_never_form_a_character_are_returned_eventually():
    tokenizer = byte_level_tokenizer()
    (token,) = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"\xff"]
    detokenizer = IncrementalDetokenizer(tokenizer.decode)
    assert any(detokenizer.add(token) for _ in range(MAX_UNCERTAIN + 1))


@pytest.mark.parametrize("stop", ["return", "\n\n", "🦙", "é ", "a", "aab"])
def test_a_text_ends_before_the_first_stop_string_wherever_tokens_end(stop):
    tokenizer, rng = byte_level_tokenizer(), random.Random(1)
    for _ in range(100):
        words = [rng.choice(["a", "b", "return", " ret", "urn", "\n", "🦙", "é", " "]) for _ in range(30)]
        tokens = [token for word in words for token in tokenizer.encode(word)]
        whole = tokenizer.decode(tokens)
        pieces, is_stopped = detokenize(tokenizer, tokens, (stop, "does not occur"))
        assert "".join(pieces) == whole.split(stop)[0]
        assert is_stopped == (stop in whole)


def test_the_earliest_of_several_stop_strings_ends_the_text():
    tokenizer = byte_level_tokenizer()
    tokens = tokenizer.encode("one two three")
    assert "".join(detokenize(tokenizer, tokens, ("three", "two", "wo"))[0]) == "one "


@pytest.mark.parametrize("make", [byte_level_tokenizer, byte_fallback_tokenizer])
def test_the_bytes_of_tokens_are_those_of_the_text(make):
    tokenizer = make()
    for text in ["abc (def): é", "🦙 日本"]:
        tokens = tokenizer.encode(text if make is byte_level_tokenizer else text.replace(" ", "\u2581"))
        assert b"".join(map(tokenizer.token_bytes, tokens)).decode() == text
    assert tokenizer.token_bytes(tokenizer.eos_id) == tokenizer.eos_token.encode()
