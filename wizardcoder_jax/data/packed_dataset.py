"""Tokenized examples, each stored once, and the rows that are built from them when a batch needs them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from wizardcoder_jax.data.packing import pack_rows, pad_rows, padded_width

FEATURES = ("tokens", "targets", "weights", "segment_ids", "positions")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenStore:
    """E examples end to end: example e is the tokens starts[e] to starts[e + 1]."""

    tokens: np.ndarray  # [N] uint16, or uint32 if the vocabulary is larger
    loss_mask: np.ndarray  # [N] bool: whether the token is supervised
    starts: np.ndarray  # [E + 1] int64

    def slots(self) -> np.ndarray:
        """Return the slots that each example takes in a row, int64 [E]: every token but the last is an input."""
        return np.maximum(np.diff(self.starts) - 1, 0)


def build_token_store(tokens: Sequence[np.ndarray], loss_mask: Sequence[np.ndarray], vocab_size: int) -> TokenStore:
    """Return the store of examples with these ids and loss masks, [n] each."""
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens], dtype=np.int64)])
    dtype = np.uint16 if vocab_size <= 2**16 else np.uint32
    return TokenStore(
        tokens=np.concatenate([np.zeros(0, dtype), *tokens], dtype=dtype, casting="unsafe"),
        loss_mask=np.concatenate([np.zeros(0, bool), *loss_mask], dtype=bool, casting="unsafe"),
        starts=starts,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """R rows; a row is a list of segments, each of which is an example."""

    members: np.ndarray  # [S] int64: the example of each segment, row after row
    item_ids: np.ndarray  # [S] int64: unique id of each segment; differs from the example where a mixture repeats examples
    starts: np.ndarray  # [R + 1] int64: row r consists of segments starts[r] to starts[r + 1]
    num_tokens: np.ndarray  # [R] int64: slots with a token
    num_supervised: np.ndarray  # [R] int64: slots with a loss weight


def build_rows(
    store: TokenStore,
    num_supervised: np.ndarray,
    examples: np.ndarray,
    item_ids: np.ndarray,
    max_length: int,
    is_packed: bool,
) -> tuple[Rows, int]:
    """Build the rows of one epoch.

    Args:
        store: E examples of at most max_length tokens.
        num_supervised: [E] supervised targets of each.
        examples: [S] the example of each segment; repeated examples occur several times.
        item_ids: [S] a unique id of each segment.
        max_length: slots of a packed row, and the maximum of a padded row.
        is_packed: put as many examples into a row as fit, instead of one.

    Returns:
        The rows and their width.
    """
    slots = store.slots()[examples]
    if is_packed:
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
    """What one epoch contains, and what was left out."""

    examples: int  # read from the files or tasks, on this side of the split
    dropped: int  # whose prompt fills max_length, so that nothing is supervised (objective original keeps them)
    truncated: int  # whose response is cut at max_length and has no end token
    items: int  # segments in the rows; a mixture repeats some examples
    rows: int
    tokens: int  # slots with a token
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
        """Return R."""
        return len(self.rows.starts) - 1

    def examples_in(self, row: int) -> np.ndarray:
        """Return the ids of the segments of `row`, in order."""
        return self.rows.item_ids[self.rows.starts[row] : self.rows.starts[row + 1]]

    def features(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Build the given rows [B] from the stored examples.

        Returns:
            Each [B, T]: tokens (the inputs), targets (the next token of the same segment), segment_ids (1, 2, ... and 0 for
            the padding at a row's end), positions (from 0 in each segment), all int32; and weights, bool: whether the
            target is supervised. The shift to the next token happens within each example, so no target is in another example.
        """
        num_segments = self.rows.starts[rows + 1] - self.rows.starts[rows]
        segments = _ranges(num_segments)
        examples = self.rows.members[np.repeat(self.rows.starts[rows], num_segments) + segments]
        slots = np.maximum(self.store.starts[examples + 1] - self.store.starts[examples] - 1, 0)
        positions = _ranges(slots)
        inputs = np.repeat(self.store.starts[examples], slots) + positions  # indices into the store
        has_token = np.arange(self.width) < self.rows.num_tokens[rows][:, None]

        def spread(values: np.ndarray, dtype: type) -> np.ndarray:
            """Return the values of all slots with a token, given row after row, as [B, T]."""
            padded = np.zeros(has_token.shape, dtype)
            padded[has_token] = values
            return padded

        return {
            "tokens": spread(self.store.tokens[inputs], np.int32),
            "targets": spread(self.store.tokens[inputs + 1], np.int32),
            "weights": spread(self.store.loss_mask[inputs + 1], bool),
            "segment_ids": spread(np.repeat(segments + 1, slots), np.int32),
            "positions": spread(positions, np.int32),
        }


def _ranges(lengths: np.ndarray) -> np.ndarray:
    """Return 0, 1, ..., n - 1 for each length n, concatenated."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
