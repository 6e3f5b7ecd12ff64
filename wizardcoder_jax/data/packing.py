"""Assigns examples to rows: best-fit-decreasing packing, or one example per row."""

import numpy as np

WIDTH_MULTIPLE = 128  # width of padded rows is a multiple of this: lanes of a TPU, tiles of attention kernels


def pack_rows(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack examples into as few rows as best-fit-decreasing needs.

    Args:
        lengths: [num_examples] number of slots that each example takes, in 1..capacity.
        capacity: number of slots per row.

    Returns:
        The examples, row after row, int64 [num_examples]; and the offsets of the R rows in that array, int64 [R + 1].
    """
    rows = assign_rows(lengths, capacity)
    members = np.fromiter((example for row in rows for example in row), np.int64, len(lengths))
    return members, np.cumsum([0, *map(len, rows)], dtype=np.int64)


def pad_rows(num_examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Assign one example to each row, in order, and return the same as `pack_rows`."""
    return np.arange(num_examples, dtype=np.int64), np.arange(num_examples + 1, dtype=np.int64)


def padded_width(lengths: np.ndarray, max_length: int) -> int:
    """Return the number of slots of a padded row: the longest length, rounded up to a multiple of 128, at most `max_length`."""
    return min(max(-(-int(lengths.max()) // WIDTH_MULTIPLE), 1) * WIDTH_MULTIPLE, max_length)


def assign_rows(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Assign each example, longest first, to the fullest row that still has space for it.

    Bit r of `open_spaces` is set if some row has r free slots, so the fullest row with enough space is found with a shift and
    the lowest set bit. This is exact best fit in time linear in the number of examples. Examples of equal length are assigned
    in index order, so the result is deterministic.

    Args:
        lengths: [num_examples] number of slots that each example takes, in 1..capacity.
        capacity: number of slots per row.

    Returns:
        The indices of the examples in each row.

    Raises:
        ValueError: a length is out of range.
    """
    if len(lengths) and not (lengths.min() >= 1 and lengths.max() <= capacity):
        raise ValueError(f"lengths must be in 1..{capacity}, found {lengths.min()}..{lengths.max()}")
    rows: list[list[int]] = []
    rows_by_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    open_spaces = 0
    for example in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[example])
        fitting = open_spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                open_spaces ^= 1 << space
        else:
            space, row = capacity, len(rows)
            rows.append([])
        rows[row].append(example)
        rows_by_space[space - length].append(row)
        open_spaces |= 1 << (space - length)
    return rows
