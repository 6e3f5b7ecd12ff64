"""Tokenised examples, each stored once, and the rows that are made of them when a batch needs them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from wizardcoder_jax.data.packing import pack_rows, pad_rows, padded_width

FEATURES = ("tokens", "targets", "weights", "segment_ids", "positions")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenStore:
    """E examples end to end: example e holds places starts[e] to starts[e + 1]."""

    tokens: np.ndarray  # [N] uint16, or uint32 where the vocabulary is larger
    loss_mask: np.ndarray  # [N] bool: whether the token is to be predicted
    starts: np.ndarray  # [E + 1] int64

    def slots(self) -> np.ndarray:
        """[E] int64: slots each takes in a row. Each token but the last is an input, each but the first a target."""
        return np.maximum(np.diff(self.starts) - 1, 0)


def build_token_store(tokens: Sequence[np.ndarray], loss_mask: Sequence[np.ndarray], vocab_size: int) -> TokenStore:
    """A store of examples: the ids [n] of each and which of them are to be predicted [n]."""
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens], dtype=np.int64)])
    dtype = np.uint16 if vocab_size <= 2**16 else np.uint32
    return TokenStore(
        tokens=np.concatenate([np.zeros(0, dtype), *tokens], dtype=dtype, casting="unsafe"),
        loss_mask=np.concatenate([np.zeros(0, bool), *loss_mask], dtype=bool, casting="unsafe"),
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


def build_rows(
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
        (order, starts), width = pack_rows(slots, max_length), max_length
    else:
        (order, starts), width = pad_rows(len(examples)), padded_width(slots, max_length)
    rows = Rows(
        members=examples[order],
        item_ids=item_ids[order],
        starts=starts,
        num_tokens=np.add.reduceat(slots[order], starts[:-1]),
        num_supervised=np.add.reduceat(num_supervised[examples[order]], starts[:-1]),
    )
    return rows, width


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochCounts:
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
    counts: EpochCounts

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
        num_segments = self.rows.starts[rows + 1] - self.rows.starts[rows]
        segments = _counted(num_segments)
        examples = self.rows.members[np.repeat(self.rows.starts[rows], num_segments) + segments]
        slots = np.maximum(self.store.starts[examples + 1] - self.store.starts[examples] - 1, 0)
        positions = _counted(slots)
        inputs = np.repeat(self.store.starts[examples], slots) + positions  # places in the store
        holds_token = np.arange(self.width) < self.rows.num_tokens[rows][:, None]

        def spread(values: np.ndarray, dtype: type) -> np.ndarray:
            """Values of all slots that hold a token, row after row, as [B, T]."""
            filled = np.zeros(holds_token.shape, dtype)
            filled[holds_token] = values
            return filled

        return {
            "tokens": spread(self.store.tokens[inputs], np.int32),
            "targets": spread(self.store.tokens[inputs + 1], np.int32),
            "weights": spread(self.store.loss_mask[inputs + 1], bool),
            "segment_ids": spread(np.repeat(segments + 1, slots), np.int32),
            "positions": spread(positions, np.int32),
        }


def _counted(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ..., n - 1 for each length n, one after another."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
