"""Best-fit-decreasing packing of tokenised examples into rows of one length."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenisedExample:
    """One example's ids and what is to be learnt of them."""

    example_id: int  # its place in the data, over all files
    tokens: np.ndarray  # [n] int32
    weights: np.ndarray  # [n] float32: loss weight of each token as a target

    @property
    def num_slots(self) -> int:
        """Slots it takes in a row: each token but the last is an input, each but the first a target."""
        return len(self.tokens) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedRows:
    """R rows of T slots; a row holds whole examples, one segment each, and padding (segment 0) at its end."""

    tokens: np.ndarray  # [R, T] int32, inputs
    targets: np.ndarray  # [R, T] int32, the next token of the same segment
    weights: np.ndarray  # [R, T] float32, of the targets in the loss
    segment_ids: np.ndarray  # [R, T] int32, 1, 2, ... and 0 for padding
    positions: np.ndarray  # [R, T] int32, from 0 in each segment
    example_ids: np.ndarray  # [num_examples] int32, row after row, in the order of the segments
    row_starts: np.ndarray  # [R + 1] int64: row r holds example_ids[row_starts[r]:row_starts[r + 1]]

    @property
    def num_rows(self) -> int:
        """R."""
        return self.tokens.shape[0]

    @property
    def max_length(self) -> int:
        """T, tokens a row."""
        return self.tokens.shape[1]

    def examples_in(self, row: int) -> np.ndarray:
        """The ids of the examples in `row`, in the order of its segments."""
        return self.example_ids[self.row_starts[row] : self.row_starts[row + 1]]


def assign_rows(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Puts each item, longest first, into the fullest row that still has room for it.

    Bit r of `open_spaces` says that some row has r free slots, so the tightest row is found by a shift and the lowest set
    bit: exact best fit, linear in the number of items. Equal lengths go in index order: the result is deterministic.

    Args:
        lengths: [num_items], each in 1..capacity.
        capacity: slots of a row.

    Returns:
        For each row the indices of its items.

    Raises:
        ValueError: a length is out of range.
    """
    if len(lengths) and not (lengths.min() >= 1 and lengths.max() <= capacity):
        raise ValueError(f"lengths must be in 1..{capacity}, found {lengths.min()}..{lengths.max()}")
    rows: list[list[int]] = []
    rows_by_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    open_spaces = 0
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        fitting = open_spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                open_spaces ^= 1 << space
        else:
            space, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        rows_by_space[space - length].append(row)
        open_spaces |= 1 << (space - length)
    return rows


def pack(examples: Sequence[TokenisedExample], max_length: int) -> PackedRows:
    """Packs examples of 2..max_length + 1 tokens into rows of `max_length` slots.

    The shift to the next token happens inside each example, so nothing crosses a border between segments.
    """
    rows = assign_rows(np.asarray([example.num_slots for example in examples], np.int64), max_length)
    shape = (len(rows), max_length)
    packed = PackedRows(
        tokens=np.zeros(shape, np.int32),
        targets=np.zeros(shape, np.int32),
        weights=np.zeros(shape, np.float32),
        segment_ids=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
        example_ids=np.asarray([examples[item].example_id for row in rows for item in row], np.int32),
        row_starts=np.cumsum([0, *map(len, rows)], dtype=np.int64),
    )
    counting = np.arange(max_length, dtype=np.int32)
    for r, row in enumerate(rows):
        start = 0
        for segment, item in enumerate(row, start=1):
            example = examples[item]
            slots = slice(start, start + example.num_slots)
            packed.tokens[r, slots] = example.tokens[:-1]
            packed.targets[r, slots] = example.tokens[1:]
            packed.weights[r, slots] = example.weights[1:]
            packed.segment_ids[r, slots] = segment
            packed.positions[r, slots] = counting[: example.num_slots]
            start = slots.stop
    return packed
