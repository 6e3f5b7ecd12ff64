"""Which example goes into which row: best-fit-decreasing packing, or one a row."""

import numpy as np

WIDTH_MULTIPLE = 128  # of padded rows: a TPU's lanes, and what its attention kernels tile by


def pack_rows(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """As many items a row as fit.

    Args:
        lengths: [num_items] slots of each, in 1..capacity.
        capacity: slots of a row.

    Returns:
        The items row after row, [num_items] int64, and where each row starts among them, [R + 1] int64.
    """
    rows = assign_rows(lengths, capacity)
    members = np.fromiter((item for row in rows for item in row), np.int64, len(lengths))
    return members, np.cumsum([0, *map(len, rows)], dtype=np.int64)


def pad_rows(num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """One item a row, in their order; returns what `pack_rows` does."""
    return np.arange(num_items, dtype=np.int64), np.arange(num_items + 1, dtype=np.int64)


def padded_width(lengths: np.ndarray, max_length: int) -> int:
    """Slots of a padded row: those of the longest item, rounded up to a multiple of 128, at most `max_length`."""
    return min(max(-(-int(lengths.max()) // WIDTH_MULTIPLE), 1) * WIDTH_MULTIPLE, max_length)


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
