"""The tokenizer of a GGUF file, rebuilt from its metadata with the `tokenizers` package.

Models of the Llama family have two kinds of tokenizers: byte-level BPE ("gpt2"), for which tokenizer.ggml.pre names the
pre-tokenizer, and SentencePiece BPE ("llama"), whose merges follow from the scores of its pieces. Keys, names and rules are
those of llama.cpp (ggml-org/llama.cpp, src/llama-vocab.cpp and conversion/base.py, as in llama-cpp-python 0.3.36). Where a
model's published tokenizer.json expresses a rule differently, we use the published form, so that token ids equal those of
transformers.
"""

import dataclasses
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.models.families.config_fields import ConfigFields

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # values of gguf.TokenType
_SPECIAL_IDS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}  # our name -> GGUF name
_SENTENCEPIECE_IDS = {"bos_token": 1, "eos_token": 2, "unk_token": 0}  # default ids in SentencePiece models
_SPACE = "\u2581"  # SentencePiece's mark for spaces


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
_PRE_TOKENIZERS = {  # tokenizer.ggml.pre -> pre-tokenizers to apply in order
    "default": [_GPT2],  # llama.cpp's name for unknown rules; transformers reads it as GPT-2
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
    """The validated tokenizer metadata of a GGUF file."""

    kind: str  # "gpt2" or "llama"
    pre: str  # a key of _PRE_TOKENIZERS; not used for "llama"
    tokens: list[str]
    types: list[int]  # type of each token, a value of gguf.TokenType
    merges: list[tuple[str, str]]  # BPE merges in order of priority
    ids: dict[str, int]  # name in `Tokenizer.special_tokens` -> token id
    adds_bos: bool
    adds_eos: bool
    adds_space: bool  # whether to add a space before the text; only used for "llama"
    chat_template: str | None

    @property
    def is_sentencepiece(self) -> bool:
        """Whether the tokenizer is SentencePiece BPE."""
        return self.kind == "llama"


def read_vocabulary(metadata: dict[str, Any], location: str) -> Vocabulary:
    """Read the metadata keys tokenizer.*.

    Args:
        metadata: metadata of the file.
        location: name of the file, for messages.

    Raises:
        InputError: a key is missing or malformed, or the pre-tokenizer is not supported.
    """
    fields = ConfigFields(metadata, location)
    kind, pre = fields.value("tokenizer.ggml.model"), fields.value("tokenizer.ggml.pre")
    if kind != "llama" and (kind != "gpt2" or not isinstance(pre, str) or pre not in _PRE_TOKENIZERS):
        raise fields.error(
            f"a tokenizer with tokenizer.ggml.model={kind!r:.40} and tokenizer.ggml.pre={pre!r:.40} cannot be rebuilt "
            f"(only 'llama', and 'gpt2' with one of {', '.join(_PRE_TOKENIZERS)}); use the model's Hugging Face folder"
        )
    tokens = _read_list(fields, "tokenizer.ggml.tokens", str)
    if not tokens or len(set(tokens)) < len(tokens):
        raise fields.error("tokenizer.ggml.tokens is missing, empty or has duplicates")
    types = _read_list(fields, "tokenizer.ggml.token_type", int, len(tokens)) or [_NORMAL] * len(tokens)
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
        adds_bos=fields.flag("tokenizer.ggml.add_bos_token", kind == "llama" or _PRE_TOKENIZERS[pre] is _LLAMA3),
        adds_eos=fields.flag("tokenizer.ggml.add_eos_token", False),
        adds_space=fields.flag("tokenizer.ggml.add_space_prefix", True),
        chat_template=template if isinstance(template, str) else None,
    )


def _read_list(fields: ConfigFields, key: str, kind: type | tuple[type, ...], length: int | None = None) -> list[Any]:
    """Return the list under `key`; empty if the key is absent."""
    values = fields.value(key)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise fields.error(f"{key} has the wrong type")
    if length is not None and len(values) != length:
        raise fields.error(f"{key} has {len(values)} entries, but tokenizer.ggml.tokens has {length}")
    return values


def _read_ids(fields: ConfigFields, kind: str, num_tokens: int) -> dict[str, int]:
    ids = {}
    for name, gguf_name in _SPECIAL_IDS.items():
        key = f"tokenizer.ggml.{gguf_name}_token_id"
        found = fields.token_id(key)
        if found is None and kind == "llama":
            found = _SENTENCEPIECE_IDS.get(name)
        if found is not None and found >= num_tokens:
            raise fields.error(f"{key}={found}, but there are only {num_tokens} tokens")
        if found is not None:
            ids[name] = found
    if "eos_token" not in ids:
        raise fields.error("the key tokenizer.ggml.eos_token_id is missing")
    return ids


def _read_merges(fields: ConfigFields, kind: str, tokens: list[str], types: list[int]) -> list[tuple[str, str]]:
    scores = _read_list(fields, "tokenizer.ggml.scores", (int, float), len(tokens))
    listed = _read_list(fields, "tokenizer.ggml.merges", str)
    merges = [(merge[:1] + first, second) for merge in listed for first, _, second in [merge[1:].partition(" ")]]
    known = set(tokens)
    for first, second in merges:
        if not {first, second, first + second} <= known:
            raise fields.error(
                f"tokenizer.ggml.merges joins {first!r:.40} and {second!r:.40}, but both and their concatenation must be tokens"
            )
    if merges:
        return merges
    if kind == "gpt2" or not scores:
        raise fields.error(f"the key tokenizer.ggml.{'merges' if kind == 'gpt2' else 'scores'} is missing or empty")
    pieces = {token: score for token, score, kind in zip(tokens, scores, types, strict=True) if kind == _NORMAL}
    return _merges_from_scores(pieces)


def _merges_from_scores(pieces: dict[str, float]) -> list[tuple[str, str]]:
    """Return all pairs of pieces whose concatenation is a piece, in order of the score of that piece.

    SentencePiece merges the two neighbors that form the piece with the best score. Merges that form the same piece are ordered
    by the length of the first part, longest first, as in transformers' converter.
    """
    found = []
    for piece, score in pieces.items():
        parts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        found.extend((-score, -len(first), first, second) for first, second in parts if first in pieces and second in pieces)
    found.sort(key=lambda merge: merge[:2])
    return [(first, second) for _, _, first, second in found]


def build_tokenizer(vocabulary: Vocabulary, location: str) -> Tokenizer:
    """Build the tokenizer.

    Args:
        vocabulary: the tokenizer metadata of the file.
        location: name of the file, for messages.

    Raises:
        InputError: the merges or special tokens are inconsistent.
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
        raise InputError(f"{location}: malformed tokenizer ({error})") from error
    if vocabulary.adds_bos or vocabulary.adds_eos:
        backend.post_processor = _special_token_template(vocabulary, location)
    return Tokenizer(backend, {name: tokens[i] for name, i in ids.items()}, vocabulary.chat_template)


def _byte_level(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    steps = _PRE_TOKENIZERS[vocabulary.pre]
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


def _special_token_template(vocabulary: Vocabulary, location: str) -> processors.TemplateProcessing:
    """Return a post-processor that adds BOS and EOS when a text is encoded with special tokens."""
    names = {"bos_token": vocabulary.adds_bos, "eos_token": vocabulary.adds_eos}
    if missing := [name for name, is_added in names.items() if is_added and name not in vocabulary.ids]:
        raise InputError(f"{location}: the tokenizer adds the {missing[0]} to every text but does not define it")
    prefix, suffix = ([vocabulary.tokens[vocabulary.ids[name]]] if is_added else [] for name, is_added in names.items())
    special = [(token, vocabulary.tokens.index(token)) for token in [*prefix, *suffix]]
    both = [[*prefix, f"${text}", *suffix] for text in "AB"]
    return processors.TemplateProcessing(single=both[0], pair=[*both[0], *both[1]], special_tokens=special)
