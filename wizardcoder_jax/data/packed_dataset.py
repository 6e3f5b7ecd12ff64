"""A dataset of packed rows: each tokenized example is stored once, and rows are built when a batch needs them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from wizardcoder_jax.data.packing import pack_rows, pad_rows, padded_width

FEATURES = ("tokens", "targets", "weights", "segment_ids", "positions")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenStore:
    """E tokenized examples, concatenated: example e consists of tokens[starts[e] : starts[e + 1]]."""

    tokens: np.ndarray  # [N] token ids: uint16, or uint32 if the vocabulary does not fit
    loss_mask: np.ndarray  # [N] bool: whether the token is supervised
    starts: np.ndarray  # [E + 1] int64: index of each example's first token

    def slots(self) -> np.ndarray:
        """Return the number of slots that each example takes in a row, int64 [E]; its last token is only a target."""
        return np.maximum(np.diff(self.starts) - 1, 0)


def build_token_store(tokens: Sequence[np.ndarray], loss_mask: Sequence[np.ndarray], vocab_size: int) -> TokenStore:
    """Return the store of examples with the given token ids and loss masks, each [n]."""
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens], dtype=np.int64)])
    dtype = np.uint16 if vocab_size <= 2**16 else np.uint32
    return TokenStore(
        tokens=np.concatenate([np.zeros(0, dtype), *tokens], dtype=dtype, casting="unsafe"),
        loss_mask=np.concatenate([np.zeros(0, bool), *loss_mask], dtype=bool, casting="unsafe"),
        starts=starts,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """R rows with S segments in total. A row is a list of segments, and a segment is an example."""

    members: np.ndarray  # [S] int64: example of each segment, row after row
    item_ids: np.ndarray  # [S] int64: unique id of each segment, even if examples are repeated
    starts: np.ndarray  # [R + 1] int64: row r consists of segments starts[r] to starts[r + 1]
    num_tokens: np.ndarray  # [R] int64: number of slots with a token
    num_supervised: np.ndarray  # [R] int64: number of slots with a supervised target


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
        num_supervised: [E] number of supervised targets in each example.
        examples: [S] example of each segment; repeated examples occur several times.
        item_ids: [S] unique id of each segment.
        max_length: number of slots of a packed row, and the maximum for a padded row.
        is_packed: whether to pack several examples into a row; otherwise each row contains one example and padding.

    Returns:
        The rows and their number of slots.
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
    """Statistics of one epoch: what it contains, and how many examples were dropped or truncated."""

    examples: int  # number of examples read for this side of the validation split
    dropped: int  # number of examples without a supervised token (kept by objective "original", otherwise dropped)
    truncated: int  # number of examples whose response is truncated at max_length and has no end token
    items: int  # number of segments in all rows; a mixture repeats some examples
    rows: int
    tokens: int  # number of slots with a token
    supervised_tokens: int  # number of slots with a supervised target
    fill: float  # fraction of slots with a token: tokens / (rows * width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The rows of one epoch, each with T slots."""

    store: TokenStore
    rows: Rows
    width: int  # T, number of slots per row
    counts: EpochCounts

    @property
    def num_rows(self) -> int:
        """R, the number of rows."""
        return len(self.rows.starts) - 1

    def examples_in(self, row: int) -> np.ndarray:
        """Return the ids of the segments in `row`, in order."""
        return self.rows.item_ids[self.rows.starts[row] : self.rows.starts[row + 1]]

    def features(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Build rows from the stored examples.

        Args:
            rows: [B] indices of the rows.

        Returns:
            Arrays [B, T] by name. int32: tokens (the inputs), targets (the next token of the same example), segment_ids (1, 2,
            ... and 0 for the padding at the end of a row) and positions (from 0 in each segment). bool: weights (whether the
            target is supervised).
        """
        num_segments = self.rows.starts[rows + 1] - self.rows.starts[rows]
        segments = _ranges(num_segments)
        examples = self.rows.members[np.repeat(self.rows.starts[rows], num_segments) + segments]
        slots = np.maximum(self.store.starts[examples + 1] - self.store.starts[examples] - 1, 0)
        positions = _ranges(slots)
        inputs = np.repeat(self.store.starts[examples], slots) + positions  # indices into store.tokens
        has_token = np.arange(self.width) < self.rows.num_tokens[rows][:, None]

        def spread(values: np.ndarray, dtype: type) -> np.ndarray:
            """Return an array [B, T] with `values`, given row after row, in the slots that have a token, and 0 elsewhere."""
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
