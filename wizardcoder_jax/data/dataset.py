"""Tokenised examples, each stored once, and the rows that are made of them when a batch needs them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from wizardcoder_jax.data.packing import pack, pad, padded_width

FEATURES = ("tokens", "targets", "weights", "segment_ids", "positions")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenStore:
    """E examples end to end: example e holds places starts[e] to starts[e + 1]."""

    tokens: np.ndarray  # [N] uint16, or uint32 where the vocabulary is larger
    learns: np.ndarray  # [N] bool: whether the token is to be predicted
    starts: np.ndarray  # [E + 1] int64

    def slots(self) -> np.ndarray:
        """[E] int64: slots each takes in a row. Each token but the last is an input, each but the first a target."""
        return np.maximum(np.diff(self.starts) - 1, 0)


def store_tokens(tokens: Sequence[np.ndarray], learns: Sequence[np.ndarray], vocab_size: int) -> TokenStore:
    """A store of examples: the ids [n] of each and which of them are to be predicted [n]."""
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens], dtype=np.int64)])
    dtype = np.uint16 if vocab_size <= 2**16 else np.uint32
    return TokenStore(
        tokens=np.concatenate([np.zeros(0, dtype), *tokens], dtype=dtype, casting="unsafe"),
        learns=np.concatenate([np.zeros(0, bool), *learns], dtype=bool, casting="unsafe"),
        starts=starts,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """R rows; a row is a list of segments, each an example."""

    members: np.ndarray  # [S] int64: the example of each segment, row after row
    item_ids: np.ndarray  # [S] int64: what is consumed with it, no two alike; see mixture.py for examples that are repeated
    starts: np.ndarray  # [R + 1] int64: row r holds segments starts[r] to starts[r + 1]
    num_tokens: np.ndarray  # [R] int64: slots that hold a token
    num_supervised: np.ndarray  # [R] int64: slots with a loss weight


def lay_out(
    store: TokenStore,
    num_supervised: np.ndarray,
    examples: np.ndarray,
    item_ids: np.ndarray,
    max_length: int,
    packs: bool,
) -> tuple[Rows, int]:
    """Puts items into rows.

    Args:
        store: E examples of at most max_length tokens.
        num_supervised: [E] targets of each that are to be learnt.
        examples: [S] the example of each item.
        item_ids: [S] of the items.
        max_length: slots of a packed row, and the most a padded one has.
        packs: as many items a row as fit, and not one.

    Returns:
        The rows and their width.
    """
    slots = store.slots()[examples]
    if packs:
        (order, starts), width = pack(slots, max_length), max_length
    else:
        (order, starts), width = pad(len(examples)), padded_width(slots, max_length)
    rows = Rows(
        members=examples[order],
        item_ids=item_ids[order],
        starts=starts,
        num_tokens=np.add.reduceat(slots[order], starts[:-1]),
        num_supervised=np.add.reduceat(num_supervised[examples[order]], starts[:-1]),
    )
    return rows, width


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What went into the rows of one epoch and what did not."""

    examples: int  # read: of the files or the task, on this side of the split
    dropped: int  # prompt alone fills max_length: nothing to learn (objective original keeps them)
    truncated: int  # response cut at max_length, without its end token
    items: int  # examples in the rows; a mixture repeats some
    rows: int
    tokens: int  # slots that hold a token
    supervised_tokens: int  # slots with a loss weight
    fill: float  # tokens / (rows * width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The rows of one epoch, T slots wide."""

    store: TokenStore
    rows: Rows
    width: int  # T
    counts: Counts

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.rows.starts) - 1

    def examples_in(self, row: int) -> np.ndarray:
        """The ids of what `row` holds, in the order of its segments."""
        return self.rows.item_ids[self.rows.starts[row] : self.rows.starts[row + 1]]

    def features(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The given rows [B], made of the stored examples.

        Returns:
            Each [B, T]: tokens (the inputs), targets (the next token of the same segment), segment_ids (1, 2, ... and 0 for
            the padding at a row's end), positions (from 0 in each segment), all int32; and weights, bool: whether the
            target is to be learnt. The shift to the next token happens inside each example, so nothing crosses a border.
        """
        shape = (len(rows), self.width)
        tokens, targets, segment_ids, positions = (np.zeros(shape, np.int32) for _ in range(4))
        weights = np.zeros(shape, bool)
        counting = np.arange(self.width, dtype=np.int32)
        for r, row in enumerate(rows.tolist()):
            members = self.rows.members[self.rows.starts[row] : self.rows.starts[row + 1]]
            bounds = zip(self.store.starts[members].tolist(), self.store.starts[members + 1].tolist(), strict=True)
            start = 0
            for segment, (first, end) in enumerate(bounds, start=1):
                stop = start + max(end - first - 1, 0)
                tokens[r, start:stop] = self.store.tokens[first : first + stop - start]
                targets[r, start:stop] = self.store.tokens[first + 1 : end]
                weights[r, start:stop] = self.store.learns[first + 1 : end]
                segment_ids[r, start:stop] = segment
                positions[r, start:stop] = counting[: stop - start]
                start = stop
        return dict(zip(FEATURES, (tokens, targets, weights, segment_ids, positions), strict=True))
