"""Near-duplicates: records whose instruction, or the code of whose answer, is almost that of an earlier one.

MinHash (Broder 1997) over word 3-grams of instructions and over code 5-grams with nameless identifiers, kept to 8 bits a hash
(b-bit MinHash, Li and König 2010) and found by bands. A million records take about 300 bytes each, whatever their length.

An evolution is by its nature like its parent. In a round of gpt-3.5's over 2,017 seeds (nickrosh/evol-teacher) 20 % of the
instructions are 0.5 like some seed, 3 % 0.7, 0.9 % 0.85 and 0.6 % 0.9: there only a number or a word is another.
"""

import array
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xxhash

from wizardcoder_jax.evol_instruct.contamination.lexing import Hashes, code_tokens, ngram_hashes, word_tokens
from wizardcoder_jax.evol_instruct.languages import fenced_blocks
from wizardcoder_jax.evol_instruct.records import Record

NEAR_DUPLICATE = "near_duplicate"
WORDS_PER_SHINGLE = 3
CODE_TOKENS_PER_SHINGLE = 5
MIN_CODE_SHINGLES = 25  # short answers are alike without being copies: print("Hello")
NUM_HASHES = 64  # the standard error of a likeness of 0.9 is 0.04
NUM_BANDS = 8  # of 4 hashes: a pair 0.9 alike shares one with probability 0.9998, 0.8 alike 0.985, 0.5 alike 0.40
CHANCE = 1 / 256  # that two different hashes have the same 8 bits
MAX_CANDIDATES = 16  # with one band alike; further ones are not looked up by it
MAX_LOAD = 0.65
FIRST_SLOTS = 1 << 10
ROWS_PER_CHUNK = 1 << 12

Signature = npt.NDArray[np.uint8]


def _constants(name: str) -> Hashes:
    return np.array([xxhash.xxh64_intdigest(f"minhash/{name}/{i}".encode()) for i in range(NUM_HASHES)], np.uint64)


_MULTIPLIERS = _constants("multiplier") | np.uint64(1)
_ADDENDS = _constants("addend")
_SPREAD = 0x9E3779B97F4A7C15  # Knuth's multiplicative hash


def minhash_signature(shingles: Hashes) -> Signature:
    """[NUM_HASHES] bytes, one of the smallest of each hash over the shingles."""
    hashed = (shingles[:, None] * _MULTIPLIERS + _ADDENDS) >> np.uint64(24)
    return hashed.min(axis=0).astype(np.uint8)


def estimate_similarity(first: Signature, second: Signature) -> float:
    """The Jaccard index of two sets of shingles, estimated from their signatures."""
    equal = float(np.count_nonzero(first == second)) / NUM_HASHES
    return max((equal - CHANCE) / (1 - CHANCE), 0.0)


def instruction_shingles(text: str) -> Hashes:
    """Word 3-grams; of a text of fewer words, the words."""
    tokens = word_tokens(text)
    found = ngram_hashes(tokens, min(WORDS_PER_SHINGLE, max(len(tokens.hashes), 1)))
    return np.unique(found[found > 0])


def code_shingles(response: str) -> Hashes:
    """Code 5-grams of the fenced blocks, or of all of a response without any (prose makes none); none of a short one."""
    code = "\n".join(code for _, code in fenced_blocks(response)) or response
    found = ngram_hashes(code_tokens(code), CODE_TOKENS_PER_SHINGLE)
    unique = np.unique(found[found > 0])
    return unique if len(unique) >= MIN_CODE_SHINGLES else np.zeros(0, np.uint64)


class NearDuplicates:
    """The filter: it remembers each record that it passes. Records must come in the order of the pools.

    Args:
        threshold: likeness from which on a record is a near-duplicate, 0 to 1.
    """

    name = NEAR_DUPLICATE

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._tables = {"instruction": _Table(), "code": _Table()}

    def check(self, record: Record) -> str | None:
        """Evidence that names the earlier record and how alike it is; None if the record is passed and remembered."""
        shingles = {"instruction": instruction_shingles(record.instruction), "code": code_shingles(record.output)}
        signatures = {part: minhash_signature(own) for part, own in shingles.items() if len(own)}
        for part, own in signatures.items():
            nearest = self._tables[part].nearest(own)
            if nearest is not None and nearest[1] >= self._threshold:
                return f"{part} {nearest[1]:.2f} like that of {nearest[0]}"
        for part, own in signatures.items():
            self._tables[part].add(own, record.id)
        return None


class _Table:
    """Signatures and the ids of their records, by bands: open addressing, a slot holds the number of a row plus 1."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._signatures: list[Signature] = []  # chunks of rows
        self._bands: list[npt.NDArray[np.uint32]] = []  # the same, a band of a row as a number
        self._ids: list[npt.NDArray[np.uint64]] = []
        self._odd_ids: dict[int, str] = {}  # those that are not KIND-<16 hexadecimal digits>
        self._kinds: list[str] = []
        self._kind_of = bytearray()
        self._slots = [_empty(FIRST_SLOTS) for _ in range(NUM_BANDS)]

    def nearest(self, own: Signature) -> tuple[str, float] | None:
        """(id, likeness) of the row most like `own`, the first of equals; None where no band is shared."""
        rows = sorted({row for band, key in enumerate(_keys(own)) for row, _ in self._rows(band, key)})
        if not rows:
            return None
        found = [estimate_similarity(own, self._signatures[row // ROWS_PER_CHUNK][row % ROWS_PER_CHUNK]) for row in rows]
        best = int(np.argmax(found))
        return self._id(rows[best]), found[best]

    def add(self, own: Signature, id_: str) -> None:
        """Remembers a row."""
        row, place = self._num_rows, self._num_rows % ROWS_PER_CHUNK
        if place == 0:
            self._signatures.append(np.zeros((ROWS_PER_CHUNK, NUM_HASHES), np.uint8))
            self._bands.append(self._signatures[-1].view(np.uint32))
            self._ids.append(np.zeros(ROWS_PER_CHUNK, np.uint64))
        self._signatures[-1][place] = own
        self._remember_id(row, id_)
        self._num_rows += 1
        if self._num_rows > MAX_LOAD * len(self._slots[0]):
            self._grow()
        else:
            self._insert(row, _keys(own))

    def _insert(self, row: int, keys: list[int]) -> None:
        for band, key in enumerate(keys):
            slots, mask = self._slots[band], len(self._slots[band]) - 1
            num_alike, slot = 0, _first_slot(key, mask)
            for _, taken in self._rows(band, key):
                num_alike, slot = num_alike + 1, taken + 1 & mask
            if num_alike < MAX_CANDIDATES:
                while slots[slot]:
                    slot = slot + 1 & mask
                slots[slot] = row + 1

    def _rows(self, band: int, key: int) -> Iterator[tuple[int, int]]:
        """(row, slot) of each that has this band."""
        slots, mask = self._slots[band], len(self._slots[band]) - 1
        slot = _first_slot(key, mask)
        while number := slots[slot]:
            row = number - 1
            if self._bands[row // ROWS_PER_CHUNK][row % ROWS_PER_CHUNK, band] == key:
                yield row, slot
            slot = slot + 1 & mask

    def _grow(self) -> None:
        size = len(self._slots[0]) * 2
        for band in range(NUM_BANDS):
            self._slots[band] = _empty(size)
        for row in range(self._num_rows):
            chunk, place = divmod(row, ROWS_PER_CHUNK)
            self._insert(row, self._bands[chunk][place, :NUM_BANDS].tolist())

    def _remember_id(self, row: int, id_: str) -> None:
        kind, _, digits = id_.rpartition("-")
        if len(digits) != 16 or not set(digits) <= set("0123456789abcdef"):
            self._odd_ids[row] = id_
            kind, digits = "", "0"
        if kind not in self._kinds:
            self._kinds.append(kind)
        self._kind_of.append(self._kinds.index(kind))
        self._ids[-1][row % ROWS_PER_CHUNK] = int(digits, 16)

    def _id(self, row: int) -> str:
        number = int(self._ids[row // ROWS_PER_CHUNK][row % ROWS_PER_CHUNK])
        return self._odd_ids.get(row) or f"{self._kinds[self._kind_of[row]]}-{number:016x}"


def _empty(size: int) -> "array.array[int]":
    return array.array("I", bytes(4 * size))


def _keys(own: Signature) -> list[int]:
    return own.view(np.uint32)[:NUM_BANDS].tolist()


def _first_slot(key: int, mask: int) -> int:
    return (key * _SPREAD & 0xFFFFFFFFFFFFFFFF) >> 32 & mask
