"""The tokenizer of a GGUF file, rebuilt from its metadata with the `tokenizers` package.

The Llama family has two kinds: byte-level BPE ("gpt2"), where tokenizer.ggml.pre names the rule that splits text into words,
and SentencePiece BPE ("llama"), whose merges follow from the scores of its pieces. Keys, names and rules are llama.cpp's
(ggml-org/llama.cpp, src/llama-vocab.cpp and conversion/base.py, as in llama-cpp-python 0.3.36); where it writes a rule in
another form than the published tokenizer.json of the models, ours is the published one, so that transformers agrees.
"""

import dataclasses
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.models.families.config_fields import ConfigFields

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # of gguf.TokenType
_SPECIAL_IDS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}  # ours -> theirs
_SENTENCEPIECE_IDS = {"bos_token": 1, "eos_token": 2, "unk_token": 0}  # where a file of that kind names none
_SPACE = "\u2581"  # SentencePiece's mark


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS_ALONE = [pre_tokenizers.Digits(individual_digits=True), _GPT2]
_LLAMA3 = [_split(_LLAMA3_PATTERN), _BYTES]
_DEEPSEEK_PATTERNS = ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"]
_SPLITTINGS = {  # tokenizer.ggml.pre -> steps
    "default": [_GPT2],  # llama.cpp's stopgap for rules that it does not know; read as transformers reads it
    "gpt-2": [_GPT2],
    "smollm": _DIGITS_ALONE,
    "starcoder": _DIGITS_ALONE,
    "refact": _DIGITS_ALONE,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": [_split(_LLAMA3_PATTERN.replace("{1,3}", "")), _BYTES],
    "deepseek-coder": [*map(_split, _DEEPSEEK_PATTERNS), pre_tokenizers.Digits(individual_digits=True), _BYTES],
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a file says of its tokenizer, checked.

    Raises (from `read_vocabulary`): InputError.
    """

    kind: str  # "gpt2" or "llama"
    pre: str  # of _SPLITTINGS; of no meaning for "llama"
    tokens: list[str]
    types: list[int]  # one a token
    merges: list[tuple[str, str]]  # the earlier the sooner
    ids: dict[str, int]  # name as in `Tokenizer.special_tokens` -> token id
    adds_bos: bool
    adds_eos: bool
    adds_space: bool  # before the text; "llama" only
    chat_template: str | None

    @property
    def is_sentencepiece(self) -> bool:
        """Whether it is of the kind "llama"."""
        return self.kind == "llama"


def read_vocabulary(metadata: dict[str, Any], place: str) -> Vocabulary:
    """The tokenizer that the keys tokenizer.* describe.

    Args:
        metadata: of the file.
        place: its name, for messages.

    Raises:
        InputError: a key is missing or malformed, or text is split by rules that we do not rebuild.
    """
    fields = ConfigFields(metadata, place)
    kind, pre = fields.value("tokenizer.ggml.model"), fields.value("tokenizer.ggml.pre")
    if kind != "llama" and (kind != "gpt2" or not isinstance(pre, str) or pre not in _SPLITTINGS):
        raise fields.error(
            f"tokenizer.ggml.model={kind!r:.40} with tokenizer.ggml.pre={pre!r:.40} cannot be rebuilt "
            f"(only 'llama', and 'gpt2' with one of {', '.join(_SPLITTINGS)}); use the model's Hugging Face folder"
        )
    tokens = _listed(fields, "tokenizer.ggml.tokens", str)
    if not tokens or len(set(tokens)) < len(tokens):
        raise fields.error("tokenizer.ggml.tokens is missing, empty or has a token twice")
    types = _listed(fields, "tokenizer.ggml.token_type", int, len(tokens)) or [_NORMAL] * len(tokens)
    if kind == "llama":
        fields.require("tokenizer.ggml.remove_extra_whitespaces", False)
        fields.require("tokenizer.ggml.precompiled_charsmap", [])
    template = fields.value("tokenizer.chat_template")
    return Vocabulary(
        kind=kind,
        pre=pre,
        tokens=tokens,
        types=types,
        merges=_read_merges(fields, kind, tokens, types),
        ids=_read_ids(fields, kind, len(tokens)),
        adds_bos=fields.flag("tokenizer.ggml.add_bos_token", kind == "llama" or _SPLITTINGS[pre] is _LLAMA3),
        adds_eos=fields.flag("tokenizer.ggml.add_eos_token", False),
        adds_space=fields.flag("tokenizer.ggml.add_space_prefix", True),
        chat_template=template if isinstance(template, str) else None,
    )


def _listed(fields: ConfigFields, key: str, kind: type | tuple[type, ...], length: int | None = None) -> list[Any]:
    """The list under `key`; empty where there is none."""
    values = fields.value(key)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise fields.error(f"{key} is of a wrong type")
    if length is not None and len(values) != length:
        raise fields.error(f"{key} has {len(values)} entries, tokenizer.ggml.tokens {length}")
    return values


def _read_ids(fields: ConfigFields, kind: str, num_tokens: int) -> dict[str, int]:
    ids = {}
    for name, theirs in _SPECIAL_IDS.items():
        key = f"tokenizer.ggml.{theirs}_token_id"
        found = fields.token_id(key)
        if found is None and kind == "llama":
            found = _SENTENCEPIECE_IDS.get(name)
        if found is not None and found >= num_tokens:
            raise fields.error(f"{key}={found}, but there are {num_tokens} tokens")
        if found is not None:
            ids[name] = found
    if "eos_token" not in ids:
        raise fields.error("the key tokenizer.ggml.eos_token_id is missing")
    return ids


def _read_merges(fields: ConfigFields, kind: str, tokens: list[str], types: list[int]) -> list[tuple[str, str]]:
    scores = _listed(fields, "tokenizer.ggml.scores", (int, float), len(tokens))
    listed = _listed(fields, "tokenizer.ggml.merges", str)
    merges = [(merge[:1] + first, second) for merge in listed for first, _, second in [merge[1:].partition(" ")]]
    known = set(tokens)
    for first, second in merges:
        if not {first, second, first + second} <= known:
            raise fields.error(
                f"tokenizer.ggml.merges joins {first!r:.40} and {second!r:.40}, which are no tokens or make none"
            )
    if merges:
        return merges
    if kind == "gpt2" or not scores:
        raise fields.error(f"the key tokenizer.ggml.{'merges' if kind == 'gpt2' else 'scores'} is missing or empty")
    pieces = {token: score for token, score, kind in zip(tokens, scores, types, strict=True) if kind == _NORMAL}
    return _merges_of_scores(pieces)


def _merges_of_scores(pieces: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, the best piece first.

    SentencePiece joins whatever two neighbours make the piece of the best score. Of the ways to make the same piece, the one
    with the longest first part goes first, which is what transformers' converter does.
    """
    found = []
    for piece, score in pieces.items():
        parts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        found.extend((-score, -len(first), first, second) for first, second in parts if first in pieces and second in pieces)
    found.sort(key=lambda merge: merge[:2])
    return [(first, second) for _, _, first, second in found]


def build_tokenizer(vocabulary: Vocabulary, place: str) -> Tokenizer:
    """The tokenizer proper.

    Args:
        vocabulary: as the file describes it.
        place: the file's name, for messages.

    Raises:
        InputError: the file's merges or special tokens do not make one.
    """
    tokens, types, ids = vocabulary.tokens, vocabulary.types, vocabulary.ids
    try:
        backend = _sentencepiece(vocabulary) if vocabulary.is_sentencepiece else _byte_level(vocabulary)
        named = {ids[name] for name in ("bos_token", "eos_token", "unk_token") if name in ids}
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
            if i in named or kind == _CONTROL:
                backend.add_special_tokens([AddedToken(token, normalized=False, special=True)])
            elif kind == _USER_DEFINED:
                backend.add_tokens([AddedToken(token, normalized=False)])
    except Exception as error:  # the tokenizers package raises bare Exception
        raise InputError(f"{place}: malformed tokenizer ({error})") from error
    if vocabulary.adds_bos or vocabulary.adds_eos:
        backend.post_processor = _around_the_text(vocabulary, place)
    return Tokenizer(backend, {name: tokens[i] for name, i in ids.items()}, vocabulary.chat_template)


def _byte_level(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    steps = _SPLITTINGS[vocabulary.pre]
    vocab = {token: i for i, token in enumerate(vocabulary.tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocab, vocabulary.merges, ignore_merges=steps is _LLAMA3))
    if vocabulary.pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    vocab = {token: i for i, token in enumerate(vocabulary.tokens)}
    unknown = vocabulary.tokens[vocabulary.ids["unk_token"]]
    backend = tokenizers.Tokenizer(models.BPE(vocab, vocabulary.merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    scheme = "first" if vocabulary.adds_space else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme, split=False)
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if vocabulary.adds_space else [])])
    return backend


def _around_the_text(vocabulary: Vocabulary, place: str) -> processors.TemplateProcessing:
    """Puts the tokens of begin and end around a text, where special tokens are asked for."""
    names = {"bos_token": vocabulary.adds_bos, "eos_token": vocabulary.adds_eos}
    if missing := [name for name, is_added in names.items() if is_added and name not in vocabulary.ids]:
        raise InputError(f"{place}: the tokenizer adds a {missing[0]} that it does not name")
    before, after = ([vocabulary.tokens[vocabulary.ids[name]]] if is_added else [] for name, is_added in names.items())
    special = [(token, vocabulary.tokens.index(token)) for token in [*before, *after]]
    both = [[*before, f"${text}", *after] for text in "AB"]
    return processors.TemplateProcessing(single=both[0], pair=[*both[0], *both[1]], special_tokens=special)
