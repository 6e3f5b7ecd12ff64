"""Text from tokens, one after the other: what is handed out joins to the whole, and no stop string is ever in it."""

import random

import pytest
import tokenizers
from tokenizers import decoders, models

from tests.helpers import tiny_models
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.serving.incremental_text import MOST_UNCERTAIN, Transcript

TEXTS = [
    "def add(a, b):\n    return a + b",
    "naïve café — “ok” 日本語のテキスト 🦙👩‍👩‍👧‍👦",
    "\t\r\n  \u00a0é" * 40,
    "🦙" * 100,
    "",
]


def byte_level():
    return Tokenizer(tiny_models.train_tokenizer(), {"eos_token": tiny_models.EOS}, None)


def byte_fallback():
    """Llama's kind: pieces of text with a mark for spaces, and single bytes for what has none."""
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


def told(tokenizer, tokens, stops=()):
    """(the pieces, whether it was stopped)"""
    transcript, pieces = Transcript(tokenizer.decode, stops), []
    for token in tokens:
        pieces.append(transcript.add(token))
        if transcript.is_stopped:
            return pieces, True
    return [*pieces, transcript.end()], transcript.is_stopped


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_join_to_the_text_and_hold_no_broken_character(make, text):
    tokenizer = make()
    if make is byte_fallback:
        text = text.replace(" ", "\u2581")
    tokens = tokenizer.encode(text)
    pieces, _ = told(tokenizer, tokens)
    assert "".join(pieces) == tokenizer.decode(tokens)
    assert "\ufffd" not in "".join(pieces)


def test_random_bytes_join_to_what_the_tokenizer_makes_of_the_whole():
    tokenizer, draw = byte_level(), random.Random(0)
    for _ in range(300):
        tokens = [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(1, 120))]
        assert "".join(told(tokenizer, tokens)[0]) == tokenizer.decode(tokens)


def test_bytes_that_never_become_a_character_are_handed_out_at_last():
    tokenizer = byte_level()
    (token,) = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"\xff"]
    transcript = Transcript(tokenizer.decode)
    assert any(transcript.add(token) for _ in range(MOST_UNCERTAIN + 1))


@pytest.mark.parametrize("stop", ["return", "\n\n", "🦙", "é ", "a", "aab"])
def test_a_text_ends_before_the_first_stop_string_wherever_tokens_end(stop):
    tokenizer, draw = byte_level(), random.Random(1)
    for _ in range(100):
        words = [draw.choice(["a", "b", "return", " ret", "urn", "\n", "🦙", "é", " "]) for _ in range(30)]
        tokens = [token for word in words for token in tokenizer.encode(word)]
        whole = tokenizer.decode(tokens)
        pieces, is_stopped = told(tokenizer, tokens, (stop, "never there"))
        assert "".join(pieces) == whole.split(stop)[0]
        assert is_stopped == (stop in whole)


def test_of_several_stop_strings_the_first_in_the_text_counts():
    tokenizer = byte_level()
    tokens = tokenizer.encode("one two three")
    assert "".join(told(tokenizer, tokens, ("three", "two", "wo"))[0]) == "one "


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_the_bytes_of_tokens_are_those_of_the_text(make):
    tokenizer = make()
    for text in ["abc (def): é", "🦙 日本"]:
        tokens = tokenizer.encode(text if make is byte_level else text.replace(" ", "\u2581"))
        assert b"".join(map(tokenizer.token_bytes, tokens)).decode() == text
    assert tokenizer.token_bytes(tokenizer.eos_id) == tokenizer.eos_token.encode()
