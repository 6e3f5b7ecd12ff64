"""Tokenizers for contamination search, which ignore formatting, and hashes of token n-grams.

A text can be tokenized in two ways:
* words: lower-case sequences of letters and digits. Whitespace, punctuation, quotes and comment marks are dropped;
* code: an identifier is represented by the distance to its previous occurrence instead of its name. Comments, docstrings,
  whitespace, parentheses, commas, colons outside brackets and the kind of quotes are dropped. Keywords, called builtins,
  attributes, numbers, strings and operators are kept. Renamed, re-indented and reformatted copies therefore have equal tokens.
"""

import builtins
import dataclasses
import keyword
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

WORDS_PER_GRAM = 3
CODE_TOKENS_PER_GRAM = 5

_WORD = re.compile(r"[^\W_]+")
# Repetition is bounded, so that scanning takes linear time even if a text has many unclosed quotes.
_TRIPLE_QUOTED = r'(?:"""(?:[^\\]|\\.){0,20000}?"""|' + r"'''(?:[^\\]|\\.){0,20000}?''')"
_CODE = re.compile(
    _TRIPLE_QUOTED
    + r"|\#[^\n]*"
    + r'|"(?:[^"\\\n]|\\.){0,500}"'
    + r"|'(?:[^'\\\n]|\\.){0,500}'"
    + r"|\.?[^\W\d]\w*|\d+(?:\.\d+)?|\*\*|//|[<>=!]=|<<|>>|[-+*/%&|^~<>=\[\]{}@(),:]",
    re.DOTALL,
)
_COMMENT_STARTS = ("#", '"""', "'''")
_STRING_PREFIXES = ("r", "b", "u", "f", "rb", "br")
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_KEYWORDS = frozenset(keyword.kwlist)
_BUILTINS = frozenset(dir(builtins))
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIXER = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_MAX_SIGNATURE_TOKENS = 400  # maximum number of signature tokens scanned for type hints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """The T tokens of a text.

    Attributes:
        hashes: [T], hash of each token; 0 for an identifier in code.
        distances: [T], number of tokens since the previous occurrence of the same identifier (0: first occurrence); -1 if the
            token is not an identifier.
        are_plain: [T], whether a token alone is no evidence of a copy: an identifier in code, or a number among words.
        spans: (start, end) of each token in the text.
    """

    hashes: Hashes
    distances: npt.NDArray[np.int64]
    are_plain: npt.NDArray[np.bool_]
    spans: list[tuple[int, int]]


def lower_case_words(text: str) -> list[str]:
    """Return the words of `text`, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def remove_comments(code: str) -> str:
    """Return `code` without comments and triple-quoted strings."""
    return _CODE.sub(lambda match: "" if match.group().startswith(_COMMENT_STARTS) else match.group(), code)


def blank_comments(text: str) -> str:
    """Replace comments and triple-quoted strings with spaces, so that all other characters keep their offsets."""
    return _CODE.sub(
        lambda match: " " * len(match.group()) if match.group().startswith(_COMMENT_STARTS) else match.group(), text
    )


def blank_type_hints(text: str) -> str:
    """Replace the type hints in Python function signatures with spaces, so that all other characters keep their offsets."""
    if "def " not in text or ":" not in text:
        return text
    matches = list(_CODE.finditer(text))
    tokens = [match.group() for match in matches]
    pieces, end = [], 0
    for i, token in enumerate(tokens):
        if token == "def" and tokens[i + 2 : i + 3] == ["("]:
            for position in _type_hint_positions(tokens, i + 2):
                start = matches[position].start()
                pieces += [text[end:start], " " * len(tokens[position])]
                end = matches[position].end()
    return "".join((*pieces, text[end:]))


def identifier_around(text: str, start: int, end: int) -> str:
    """Return the whole identifier around the word text[start:end], for example "two_sum" around "sum"."""
    while start and (text[start - 1] == "_" or text[start - 1].isalnum()):
        start -= 1
    while end < len(text) and (text[end] == "_" or text[end].isalnum()):
        end += 1
    return text[start:end]


def tokenize_words(text: str) -> Tokens:
    """Tokenize `text` as words."""
    found = [(match.group().lower(), match.span()) for match in _WORD.finditer(text)]
    hashes = np.array([_hash(word) for word, _ in found], np.uint64)
    return Tokens(
        hashes=hashes,
        distances=np.full(len(found), -1, np.int64),
        are_plain=np.array([word.isdecimal() for word, _ in found], np.bool_),
        spans=[span for _, span in found],
    )


def tokenize_code(text: str) -> Tokens:
    """Tokenize `text` as code. Prose becomes identifiers, which cannot match: n-grams of identifiers only are ignored."""
    matches = [(match.group(), match.span()) for match in _CODE.finditer(text)]
    hashes: list[int] = []
    distances: list[int] = []
    spans: list[tuple[int, int]] = []
    last: dict[str, int] = {}
    before, depth = "", 0
    for i, (token, span) in enumerate(matches):
        first = token[0]
        depth += (first == "[") - (first == "]")
        if first in "()," or (first == ":" and depth <= 0) or token.startswith(_COMMENT_STARTS):
            continue
        distance, value = -1, 0
        following = matches[i + 1][0] if i + 1 < len(matches) else ""
        if first in "\"'":
            if _is_alone(text, *span):
                continue
            value = _hash('"' + token[1:-1].lower().replace("\\", ""))
        elif token.lower() in _STRING_PREFIXES and following[:1] in ('"', "'") and matches[i + 1][1][0] == span[1]:
            continue
        elif (first.isalpha() or first == "_") and not _is_fixed(token, before, following):
            distance = len(hashes) - last.get(token, len(hashes))
            last[token] = len(hashes)
        else:
            value = _hash(token.rstrip("0").rstrip(".") if "." in token[1:] else token)
        hashes.append(value)
        distances.append(distance)
        spans.append(span)
        before = token
    back = np.array(distances, np.int64)
    return Tokens(hashes=np.array(hashes, np.uint64), distances=back, are_plain=back >= 0, spans=spans)


def _type_hint_positions(tokens: list[str], opening: int) -> Iterator[int]:
    """Yield the positions of the type hint tokens in a function signature.

    Args:
        tokens: the tokens of the whole text.
        opening: position of the opening parenthesis of the signature.
    """
    depth, is_hint, in_result = 0, False, False
    for position in range(opening, min(opening + _MAX_SIGNATURE_TOKENS, len(tokens))):
        token = tokens[position]
        depth += (token in _OPENING) - (token in _CLOSING)
        if token == "def" or (in_result and depth == 0 and token == ":"):
            return
        if depth == 0 and token == ")" and not in_result:
            is_hint = in_result = tokens[position + 1 : position + 3] == ["-", ">"]
            if not in_result:
                return
        elif depth == 1 and not in_result:
            is_hint = token == ":" or (is_hint and token not in (",", "="))
            if is_hint:
                yield position
        elif is_hint:
            yield position


def _is_alone(text: str, start: int, end: int) -> bool:
    """Return whether text[start:end] is alone on its line. A string that is alone on its line is a docstring."""
    line_end = text.find("\n", end)
    before, after = text[text.rfind("\n", 0, start) + 1 : start], text[end : line_end if line_end >= 0 else len(text)]
    return not before.strip() and not after.strip()


def _is_fixed(name: str, before: str, after: str) -> bool:
    return name in _KEYWORDS or (name in _BUILTINS and after == "(" and before != "def")


def _hash(token: str) -> int:
    return xxhash.xxh64_intdigest(token.encode("utf-8", "surrogatepass"))


_IDENTIFIER = np.uint64(_hash("\0identifier"))


def ngram_hashes(tokens: Tokens, length: int) -> Hashes:
    """Return the hashes of all n-grams of `length` tokens, [T - length + 1]; 0 for n-grams of plain tokens only.

    Identifiers are hashed by the distance to their previous occurrence within the n-gram, so n-grams that differ only in names
    are equal.
    """
    num = len(tokens.hashes) - length + 1
    if num <= 0:
        return np.zeros(0, np.uint64)
    total = np.zeros(num, np.uint64)
    all_plain = np.ones(num, np.bool_)
    for offset in range(length):
        distances = tokens.distances[offset : offset + num]
        is_identifier = distances >= 0
        inside = np.where(distances <= offset, distances, 0).astype(np.uint64)
        total = total * _MULTIPLIER + np.where(is_identifier, _IDENTIFIER + inside, tokens.hashes[offset : offset + num])
        all_plain &= tokens.are_plain[offset : offset + num]
    total ^= total >> _HALF
    total *= _MIXER
    total ^= total >> _HALF
    return np.where(all_plain, np.uint64(0), np.maximum(total, np.uint64(1)))
