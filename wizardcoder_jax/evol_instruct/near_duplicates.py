"""A filter for near-duplicates: records whose instruction or code is almost equal to that of an earlier record.

The filter uses MinHash (Broder 1997) over word 3-grams of instructions and over code 5-grams with anonymized identifiers, with
8 bits per hash (b-bit MinHash, Li and König 2010). Locality-sensitive hashing by bands finds the candidates. A record takes
about 300 bytes of memory, regardless of its length.

An evolved instruction is similar to its parent by design. In one round by gpt-3.5 over 2,017 seeds (nickrosh/evol-teacher),
20 % of the evolved instructions have a similarity of at least 0.5 to some seed, 3 % of at least 0.7, 0.9 % of at least 0.85
and 0.6 % of at least 0.9. At 0.9, only a number or a word differs.
"""

import array
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xxhash

from wizardcoder_jax.evol_instruct.contamination.lexing import Hashes, ngram_hashes, tokenize_code, tokenize_words
from wizardcoder_jax.evol_instruct.language_detection import fenced_blocks
from wizardcoder_jax.evol_instruct.records import Record

NEAR_DUPLICATE = "near_duplicate"
WORDS_PER_SHINGLE = 3
CODE_TOKENS_PER_SHINGLE = 5
MIN_CODE_SHINGLES = 25  # shorter programs, such as print("Hello"), are often similar without being copies
NUM_HASHES = 64  # number of hashes per signature; the standard error of an estimated similarity is 0.04 at 0.9
# Number of bands of 4 hashes each. Two records share a band with probability 0.9998 at similarity 0.9, 0.985 at 0.8 and 0.40
# at 0.5.
NUM_BANDS = 8
COLLISION_RATE = 1 / 256  # probability that two different hashes have the same 8 bits
MAX_CANDIDATES = 16  # maximum number of records that are indexed under one value of a band; further ones are left out
MAX_LOAD = 0.65  # maximum load factor of the hash tables
INITIAL_SLOTS = 1 << 10
ROWS_PER_CHUNK = 1 << 12

Signature = npt.NDArray[np.uint8]


def _constants(name: str) -> Hashes:
    return np.array([xxhash.xxh64_intdigest(f"minhash/{name}/{i}".encode()) for i in range(NUM_HASHES)], np.uint64)


_MULTIPLIERS = _constants("multiplier") | np.uint64(1)
_ADDENDS = _constants("addend")
_HASH_MULTIPLIER = 0x9E3779B97F4A7C15  # Knuth's multiplicative hash


def minhash_signature(shingles: Hashes) -> Signature:
    """Return the MinHash signature [NUM_HASHES] of a set of shingles: one byte of each hash function's minimum over the set."""
    hashed = (shingles[:, None] * _MULTIPLIERS + _ADDENDS) >> np.uint64(24)
    return hashed.min(axis=0).astype(np.uint8)


def estimate_similarity(first: Signature, second: Signature) -> float:
    """Estimate the Jaccard index of two sets of shingles from their signatures."""
    equal = float(np.count_nonzero(first == second)) / NUM_HASHES
    return max((equal - COLLISION_RATE) / (1 - COLLISION_RATE), 0.0)


def instruction_shingles(text: str) -> Hashes:
    """Return the hashes of the word 3-grams of a text; a text of fewer than three words counts as one n-gram."""
    tokens = tokenize_words(text)
    found = ngram_hashes(tokens, min(WORDS_PER_SHINGLE, max(len(tokens.hashes), 1)))
    return np.unique(found[found > 0])


def code_shingles(response: str) -> Hashes:
    """Return the hashes of the code 5-grams in the fenced blocks, or in the whole response if it has no fenced block.

    The result is empty if there are fewer than MIN_CODE_SHINGLES. Prose has no code n-grams.
    """
    code = "\n".join(code for _, code in fenced_blocks(response)) or response
    found = ngram_hashes(tokenize_code(code), CODE_TOKENS_PER_SHINGLE)
    unique = np.unique(found[found > 0])
    return unique if len(unique) >= MIN_CODE_SHINGLES else np.zeros(0, np.uint64)


class NearDuplicateFilter:
    """A rounds.SequentialFilter that rejects a record if it is a near-duplicate of an earlier record that passed.

    Args:
        threshold: similarity, from 0 to 1, at and above which a record is a near-duplicate.
    """

    name = NEAR_DUPLICATE

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._tables = {"instruction": _Table(), "code": _Table()}

    def check(self, record: Record) -> str | None:
        """Return evidence (a similar earlier record and the similarity); if there is none, add the record and return None."""
        shingles = {"instruction": instruction_shingles(record.instruction), "code": code_shingles(record.output)}
        signatures = {part: minhash_signature(hashes) for part, hashes in shingles.items() if len(hashes)}
        for part, signature in signatures.items():
            nearest = self._tables[part].nearest(signature)
            if nearest is not None and nearest[1] >= self._threshold:
                return f"{part} {nearest[1]:.2f} like that of {nearest[0]}"
        for part, signature in signatures.items():
            self._tables[part].add(signature, record.id)
        return None


class _Table:
    """Signatures and record ids, indexed by one hash table per band with open addressing.

    A slot of a hash table contains a row number plus 1, or 0 if the slot is empty.
    """

    def __init__(self) -> None:
        self._num_rows = 0
        self._signatures: list[Signature] = []  # chunks of ROWS_PER_CHUNK rows each
        self._bands: list[npt.NDArray[np.uint32]] = []  # views of the same chunks with one 4-byte number per band
        self._ids: list[npt.NDArray[np.uint64]] = []
        self._other_ids: dict[int, str] = {}  # row -> id, for ids other than KIND-<16 hexadecimal digits>
        self._kinds: list[str] = []
        self._kind_of = bytearray()
        self._slots = [_empty(INITIAL_SLOTS) for _ in range(NUM_BANDS)]

    def nearest(self, signature: Signature) -> tuple[str, float] | None:
        """Return (id, similarity) of the first of the most similar rows, or None if no row shares a band with `signature`."""
        rows = sorted({row for band, key in enumerate(_keys(signature)) for row, _ in self._rows(band, key)})
        if not rows:
            return None
        found = [estimate_similarity(signature, self._signatures[row // ROWS_PER_CHUNK][row % ROWS_PER_CHUNK]) for row in rows]
        best = int(np.argmax(found))
        return self._id(rows[best]), found[best]

    def add(self, signature: Signature, id_: str) -> None:
        """Add a signature and its record id as a new row."""
        row, offset = self._num_rows, self._num_rows % ROWS_PER_CHUNK
        if offset == 0:
            self._signatures.append(np.zeros((ROWS_PER_CHUNK, NUM_HASHES), np.uint8))
            self._bands.append(self._signatures[-1].view(np.uint32))
            self._ids.append(np.zeros(ROWS_PER_CHUNK, np.uint64))
        self._signatures[-1][offset] = signature
        self._store_id(row, id_)
        self._num_rows += 1
        if self._num_rows > MAX_LOAD * len(self._slots[0]):
            self._grow()
        else:
            self._insert(row, _keys(signature))

    def _insert(self, row: int, keys: list[int]) -> None:
        for band, key in enumerate(keys):
            slots, mask = self._slots[band], len(self._slots[band]) - 1
            num_equal, slot = 0, _first_slot(key, mask)
            for _, taken in self._rows(band, key):
                num_equal, slot = num_equal + 1, taken + 1 & mask
            if num_equal < MAX_CANDIDATES:
                while slots[slot]:
                    slot = slot + 1 & mask
                slots[slot] = row + 1

    def _rows(self, band: int, key: int) -> Iterator[tuple[int, int]]:
        """Yield (row, slot) for each row whose value of the band is `key`."""
        slots, mask = self._slots[band], len(self._slots[band]) - 1
        slot = _first_slot(key, mask)
        while entry := slots[slot]:
            row = entry - 1
            if self._bands[row // ROWS_PER_CHUNK][row % ROWS_PER_CHUNK, band] == key:
                yield row, slot
            slot = slot + 1 & mask

    def _grow(self) -> None:
        size = len(self._slots[0]) * 2
        for band in range(NUM_BANDS):
            self._slots[band] = _empty(size)
        for row in range(self._num_rows):
            chunk, offset = divmod(row, ROWS_PER_CHUNK)
            self._insert(row, self._bands[chunk][offset, :NUM_BANDS].tolist())

    def _store_id(self, row: int, id_: str) -> None:
        kind, _, digits = id_.rpartition("-")
        if len(digits) != 16 or not set(digits) <= set("0123456789abcdef"):
            self._other_ids[row] = id_
            kind, digits = "", "0"
        if kind not in self._kinds:
            self._kinds.append(kind)
        self._kind_of.append(self._kinds.index(kind))
        self._ids[-1][row % ROWS_PER_CHUNK] = int(digits, 16)

    def _id(self, row: int) -> str:
        number = int(self._ids[row // ROWS_PER_CHUNK][row % ROWS_PER_CHUNK])
        return self._other_ids.get(row) or f"{self._kinds[self._kind_of[row]]}-{number:016x}"


def _empty(size: int) -> "array.array[int]":
    return array.array("I", bytes(4 * size))


def _keys(signature: Signature) -> list[int]:
    return signature.view(np.uint32)[:NUM_BANDS].tolist()


def _first_slot(key: int, mask: int) -> int:
    return (key * _HASH_MULTIPLIER & 0xFFFFFFFFFFFFFFFF) >> 32 & mask
