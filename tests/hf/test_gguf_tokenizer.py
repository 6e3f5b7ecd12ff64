"""Tokenizers of GGUF files against transformers, sentencepiece and the rules of llama.cpp."""

import functools
import importlib.util
import itertools
import json
import os

import pytest
import regex
import sentencepiece
import tokenizers
from tokenizers import pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from tests.helpers import tiny_gguf
from tests.helpers.many_texts import many_texts
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.hf.gguf_tokenizer import build_tokenizer, read_vocabulary
from wizardcoder_jax.hf.model_source import EMBEDDED, ModelSource
from wizardcoder_jax.hf.tokenizer import tokenizer_from_files

PACKAGE, FILE = EMBEDDED["smollm2-135m-instruct"]
SPEC = importlib.util.find_spec(PACKAGE)

# The pre_tokenizer in published tokenizer.json files: gpt2, bigcode/starcoder (and HuggingFaceTB/SmolLM2), deepseek-ai's
# deepseek-coder, meta-llama's Llama 3, Qwen's Qwen2.5-Coder.
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PUBLISHED = {
    "gpt-2": [{**BYTE_LEVEL, "use_regex": True}],
    "starcoder": [{"type": "Digits", "individual_digits": True}, {**BYTE_LEVEL, "use_regex": True}],
    "deepseek-coder": [
        *(
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
            for pattern in ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")
        ),
        {"type": "Digits", "individual_digits": True},
        {**BYTE_LEVEL, "use_regex": False},
    ],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False},
        {**BYTE_LEVEL, "use_regex": False},
    ],
    "qwen2": [
        {"type": "Split", "pattern": {"Regex": LLAMA3.replace("{1,3}", "")}, "behavior": "Isolated", "invert": False},
        {**BYTE_LEVEL, "use_regex": False},
    ],
}
PUBLISHED |= {"default": PUBLISHED["gpt-2"], "smollm": PUBLISHED["starcoder"], "refact": PUBLISHED["starcoder"]}
PUBLISHED |= {"llama3": PUBLISHED["llama-bpe"], "llama-v3": PUBLISHED["llama-bpe"]}
ALIASES = ("default", "smollm", "refact", "llama3", "llama-v3")  # of other names

# The same rules in llama.cpp (src/llama-vocab.cpp): each pattern splits the pieces of the previous one.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
LLAMA_CPP = {
    "gpt-2": [WORDS],
    "smollm": [r"\p{N}", WORDS],
    "starcoder": [r"\p{N}", WORDS],
    "deepseek-coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
    "llama-bpe": [LLAMA3.replace(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", CONTRACTIONS)],
}
SPECIAL = ["<|endoftext|>", "<|im_start|>"]


def split_like_llama_cpp(text, pre):
    pieces = [text]
    for pattern in LLAMA_CPP[pre]:
        unsplit, pieces = pieces, []
        for piece in unsplit:
            end = 0
            for match in regex.finditer(pattern, piece):
                pieces += [piece[end : match.start()], match.group()]
                end = match.end()
            pieces.append(piece[end:])
    return [piece for piece in pieces if piece]


@functools.cache
def byte_alphabet():
    """Return the character of each byte in GPT-2's byte-level BPE (Radford et al. 2019, encoder.py)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def encoder_like_llama_cpp(metadata):
    """Return a function from text to ids: byte-level BPE without the tokenizers package."""
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    ids = {token: i for i, token in enumerate(tokens)}
    ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(metadata["tokenizer.ggml.merges"])}
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == 3]
    cut = regex.compile("(" + "|".join(map(regex.escape, special)) + ")")

    @functools.cache
    def merge(word):
        parts = [byte_alphabet()[byte] for byte in word.encode()]
        while len(parts) > 1:
            rank, i = min((ranks.get(pair, len(ranks)), i) for i, pair in enumerate(itertools.pairwise(parts)))
            if rank == len(ranks):
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return [ids[part] for part in parts]

    def encode(text):
        found = []
        for part in cut.split(text):
            words = split_like_llama_cpp(part, metadata["tokenizer.ggml.pre"])
            found += [ids[part]] if part in special else [i for word in words for i in merge(word)]
        return found

    return encode


@functools.cache
def trained(pre):
    """Train a BPE with the pre-tokenizer `pre`; return the metadata of a GGUF file, and tokenizer.json."""
    steps = json.dumps({"type": "Sequence", "pretokenizers": PUBLISHED[pre]})
    made = {"version": "1.0", "added_tokens": [], "decoder": {**BYTE_LEVEL, "use_regex": True}}
    made |= {"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": json.loads(steps)}
    made |= {"normalizer": {"type": "NFC"} if pre == "qwen2" else None, "post_processor": None}
    backend = tokenizers.Tokenizer.from_str(json.dumps(made))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(many_texts([]), trainer)
    whole = json.loads(backend.to_str())
    model = whole["model"]
    if pre.startswith("llama"):
        model["ignore_merges"] = True
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in SPECIAL else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
    }
    return metadata, json.dumps(whole)


def rebuilt(metadata):
    return build_tokenizer(read_vocabulary(metadata, "model.gguf"), "model.gguf")


def backend_of(tokenizer):
    return tokenizers.Tokenizer.from_str(tokenizer.to_files()["tokenizer.json"])


def assert_equal_ids(ours, theirs, texts):
    """Compare ids without special tokens; `theirs` is a function from text to ids."""
    assert len(texts) >= 1000
    assert [text for text in texts if ours.encode(text) != theirs(text)] == []


@pytest.mark.parametrize("pre", [pytest.param(pre, marks=pytest.mark.slow if pre in ALIASES else []) for pre in PUBLISHED])
def test_every_pre_tokenizer_equals_transformers_on_a_thousand_texts(pre, tmp_path):
    metadata, published = trained(pre)
    (tmp_path / "tokenizer.json").write_text(published)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ours = rebuilt(metadata)
    assert len(ours.encode("distinct values")) <= 8  # merges are applied
    assert_equal_ids(ours, lambda text: theirs.encode(text, add_special_tokens=False), many_texts(SPECIAL))
    for text in many_texts([]):
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("pre", LLAMA_CPP)
def test_every_pre_tokenizer_equals_the_rules_of_llama_cpp_on_a_thousand_texts(pre):
    metadata, _ = trained(pre)
    assert_equal_ids(rebuilt(metadata), encoder_like_llama_cpp(metadata), many_texts(SPECIAL))


def test_pre_tokenizers_differ_on_the_texts():
    """Otherwise the tests above could pass with a single pre-tokenizer."""
    texts = many_texts([])
    split = {pre: [split_like_llama_cpp(text, pre) for text in texts] for pre in LLAMA_CPP if pre != "smollm"}
    assert all(split[one] != split[other] for one in split for other in split if one != other)


def test_user_defined_tokens_are_single_ids_and_part_of_the_text():
    metadata, _ = trained("gpt-2")
    tokens = [*metadata["tokenizer.ggml.tokens"], "<think>"]
    types = [*metadata["tokenizer.ggml.token_type"], 4]
    ours = rebuilt({**metadata, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types})
    assert ours.encode("a<think>b")[1] == len(tokens) - 1
    assert ours.decode(ours.encode("a<think>b<|im_start|>")) == "a<think>b"


def test_begin_and_end_of_text_tokens_are_added_according_to_the_file():
    metadata, _ = trained("llama-bpe")
    for changes, expected in [({}, [1]), ({"tokenizer.ggml.add_bos_token": False}, [])]:  # Llama 3 adds it by default
        ours = rebuilt(metadata | changes)
        assert backend_of(ours).encode("").ids == expected
        assert ours.encode("") == []
    metadata, _ = trained("gpt-2")
    for changes, expected in [({}, []), ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}, [1, 0])]:
        assert backend_of(rebuilt(metadata | changes)).encode("").ids == expected


@pytest.fixture(scope="module")
def sentencepiece_folder(tmp_path_factory):
    """A SentencePiece BPE trained with LLaMA's settings (byte fallback, single digits, no normalization)."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    settings = {"model_type": "bpe", "byte_fallback": True, "split_digits": True, "allow_whitespace_only_pieces": True}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for text in many_texts([]) if text.isprintable()]),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=900,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.98,
        minloglevel=2,
        **settings,
    )
    return folder


@pytest.fixture(scope="module")
def processor(sentencepiece_folder):
    return sentencepiece.SentencePieceProcessor(str(sentencepiece_folder / "tokenizer.model"))


@pytest.fixture(scope="module")
def pieces(processor):
    """The metadata that llama.cpp's converter writes (conversion/base.py, _create_vocab_sentencepiece)."""
    ids = range(processor.get_piece_size())
    kinds = ((processor.is_unknown, 2), (processor.is_control, 3), (processor.is_byte, 6))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [processor.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": [processor.get_score(i) for i in ids],
        "tokenizer.ggml.token_type": [next((kind for asks, kind in kinds if asks(i)), 1) for i in ids],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


@pytest.mark.parametrize("adds_space", [True, False])
def test_a_sentencepiece_tokenizer_equals_transformers_on_a_thousand_texts(adds_space, sentencepiece_folder, pieces):
    theirs = LlamaTokenizer.from_pretrained(sentencepiece_folder, add_prefix_space=adds_space, add_bos_token=True)
    ours = rebuilt(pieces | {"tokenizer.ggml.add_space_prefix": adds_space})
    texts = many_texts(["<s>", "</s>", "<unk>"])
    assert_equal_ids(ours, lambda text: theirs.encode(text, add_special_tokens=False), texts)
    whole = backend_of(ours)
    for text in texts:
        ids = theirs.encode(text)
        assert whole.encode(text).ids == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_a_sentencepiece_tokenizer_equals_transformers_import_of_the_file(pieces, tmp_path):
    path = tiny_gguf.write(tmp_path / "model.gguf", tiny_gguf.model_metadata() | pieces, {})
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    texts = many_texts(["<s>", "</s>", "<unk>"])
    assert_equal_ids(rebuilt(pieces), lambda text: theirs.encode(text, add_special_tokens=False), texts)


def test_a_sentencepiece_tokenizer_equals_sentencepiece(pieces, processor):
    """Except for texts that start with a space: transformers, and so we, add no second one."""
    ours = rebuilt(pieces)
    texts = [text for text in many_texts([]) if not text.startswith((" ", "\u2581"))]
    assert len(texts) >= 800
    assert [text for text in texts if ours.encode(text) != processor.encode(text)] == []


def test_unused_pieces_are_never_produced(pieces, processor):
    whole = rebuilt(pieces).encode("values")
    longest = max(whole, key=lambda i: len(pieces["tokenizer.ggml.tokens"][i]))
    types = [5 if i == longest else kind for i, kind in enumerate(pieces["tokenizer.ggml.token_type"])]
    assert longest not in rebuilt(pieces | {"tokenizer.ggml.token_type": types}).encode("values")


MALFORMED = {
    "no kind": ({"tokenizer.ggml.model": None}, "tokenizer.ggml.model=None .* cannot be rebuilt"),
    "another kind": ({"tokenizer.ggml.model": "t5"}, "tokenizer.ggml.model='t5' .* cannot be rebuilt"),
    "no rule": ({"tokenizer.ggml.pre": None}, "tokenizer.ggml.pre=None cannot be rebuilt"),
    "another rule": ({"tokenizer.ggml.pre": "tekken"}, "tokenizer.ggml.pre='tekken' cannot be rebuilt"),
    "a rule of a wrong type": ({"tokenizer.ggml.pre": ["gpt-2"]}, "cannot be rebuilt"),
    "no tokens": ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens is missing"),
    "tokens that are numbers": ({"tokenizer.ggml.tokens": [1, 2]}, "tokenizer.ggml.tokens has the wrong type"),
    "a token twice": ({"tokenizer.ggml.tokens": ["a", "a"]}, "has duplicates"),
    "types that are texts": ({"tokenizer.ggml.token_type": ["1"]}, "token_type has the wrong type"),
    "too few types": ({"tokenizer.ggml.token_type": [1, 1]}, r"token_type has 2 entries, but tokenizer.ggml.tokens has \d+"),
    "too few scores": ({"tokenizer.ggml.scores": [0.0]}, r"scores has 1 entries, but tokenizer.ggml.tokens has \d+"),
    "no merges": ({"tokenizer.ggml.merges": None}, "tokenizer.ggml.merges is missing"),
    "a merge of one token": ({"tokenizer.ggml.merges": ["ab"]}, "merges joins 'ab' and ''"),
    "a merge of no tokens": ({"tokenizer.ggml.merges": ["ab zz"]}, "merges joins 'ab' and 'zz'"),
    "no end of text": ({"tokenizer.ggml.eos_token_id": None}, "the key tokenizer.ggml.eos_token_id is missing"),
    "an end beyond the tokens": ({"tokenizer.ggml.eos_token_id": 99999}, r"eos_token_id=99999, but there are only \d+ tokens"),
    "a beginning that is no id": ({"tokenizer.ggml.bos_token_id": "<s>"}, "bos_token_id='<s>' is not a token id"),
    "a flag that is none": ({"tokenizer.ggml.add_bos_token": 1}, "add_bos_token=1 must be true or false"),
    "an unnamed beginning": (
        {"tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.add_bos_token": True},
        "adds the bos_token to every text but does not define it",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_tokenizer_is_rejected(case):
    changes, message = MALFORMED[case]
    with pytest.raises(InputError, match=f"model.gguf: .*{message}") as caught:
        rebuilt(trained("gpt-2")[0] | changes)
    assert "\n" not in str(caught.value)


def test_a_sentencepiece_tokenizer_with_normalization_is_rejected(pieces):
    with pytest.raises(InputError, match="remove_extra_whitespaces=True changes"):
        rebuilt(pieces | {"tokenizer.ggml.remove_extra_whitespaces": True})
    with pytest.raises(InputError, match=r"tokenizer\.ggml\.scores is missing"):
        rebuilt(pieces | {"tokenizer.ggml.scores": None})


@pytest.fixture(scope="module")
def embedded():
    if SPEC is None:
        pytest.skip(f"no {PACKAGE}; make setup installs it")
    return ModelSource("smollm2-135m-instruct").tokenizer


@pytest.fixture(scope="module")
def transformers_tokenizer(embedded):
    return AutoTokenizer.from_pretrained(os.path.dirname(SPEC.origin), gguf_file=FILE)


EMBEDDED_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"]


def test_smollm2_equals_transformers_on_a_thousand_texts(embedded, transformers_tokenizer):
    """transformers 5.23 reads "smollm" as GPT-2 and does not split digits, which matters after two spaces or line ends. With
    the published steps the two are equal everywhere."""
    texts = many_texts(EMBEDDED_SPECIAL)
    encode = functools.partial(transformers_tokenizer.encode, add_special_tokens=False)
    without_digits = [text for text in texts if not regex.search(r"\p{N}", text)]
    assert len(without_digits) >= 400
    assert [text for text in without_digits if embedded.encode(text) != encode(text)] == []
    published = json.loads(transformers_tokenizer.backend_tokenizer.to_str())
    published["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": PUBLISHED["smollm"]}
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(published)))
    assert_equal_ids(embedded, lambda text: theirs.encode(text, add_special_tokens=False), texts)
    for text in texts:
        assert embedded.decode(embedded.encode(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)


def test_smollm2_equals_the_rules_of_llama_cpp_on_a_thousand_texts(embedded):
    model = json.loads(embedded.to_files()["tokenizer.json"])
    tokens = sorted(model["model"]["vocab"], key=model["model"]["vocab"].get)
    special = {token["content"] for token in model["added_tokens"]}
    metadata = {
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["model"]["merges"]],
    }
    assert_equal_ids(embedded, encoder_like_llama_cpp(metadata), many_texts(EMBEDDED_SPECIAL))


def test_decoding_restores_the_text(embedded):
    for text in many_texts([]):
        assert embedded.decode(embedded.encode(text)) == text


def test_special_tokens_are_single_ids_that_decoding_skips(embedded):
    for i, token in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]):
        assert embedded.encode(token) == [i]
        assert embedded.decode([i]) == ""
    assert embedded.eos_id == 2
    assert embedded.encode("a<|im_end|>b") == [*embedded.encode("a"), 2, *embedded.encode("b")]
    assert embedded.vocab_size == 49152


def test_the_chat_prompt_is_chatml_with_the_system_message_of_the_model(embedded):
    assert embedded.chat_prompt("Hi") == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_export_keeps_the_rebuilt_tokenizer(embedded):
    again = tokenizer_from_files(embedded.to_files(), "exported", None)
    assert again.fingerprint == embedded.fingerprint
    assert again.chat_prompt("Hi") == embedded.chat_prompt("Hi")
