"""Prefilled prompts: those used last are kept, and what a new one shares with them from its start is not computed again."""

from collections import OrderedDict
from collections.abc import Sequence

import jax
import numpy as np

from wizardcoder_jax.core.sharding import target_device_kind
from wizardcoder_jax.inference.decode_state import new_cache, prefiller, resized
from wizardcoder_jax.models.transformer import KVCache, Transformer

# Tokens a call: of the longer size while there are so many, and a rest in the least that holds it. Pieces are shared whole, so
# that a prompt's numbers do not depend on what else was prefilled.
PIECES = (64, 128)
NUM_KEPT = 4


def common_start(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all prompts begin with, short of the whole of any."""
    first, last = min(prompts), max(prompts)
    length = min(len(first), len(last)) - 1
    return first[: next((i for i in range(length) if first[i] != last[i]), length)]


class PrefixCache:
    """Prompts with their caches, in pieces of few sizes, so that few compiled programs serve all lengths.

    Args:
        model: the weights.
        capacities: what a cache may hold, in rising order.
        dtype: of the caches.
        header: what prompts begin with; its end is the end of a piece, so that it is shared by all that begin with it.
    """

    def __init__(
        self, model: Transformer, capacities: tuple[int, ...], dtype: jax.typing.DTypeLike, header: tuple[int, ...] = ()
    ) -> None:
        self._model, self._capacities, self._dtype, self._header = model, capacities, np.dtype(dtype), header
        self._kept: OrderedDict[tuple[int, ...], tuple[jax.Array, KVCache]] = OrderedDict()
        self.num_pieces = 0  # that were computed

    def get(self, prompt: tuple[int, ...]) -> tuple[jax.Array, KVCache]:
        """The logits [1, V] after a prompt, and its cache: a batch of one with the least capacity that holds it."""
        found = self._kept.get(prompt)
        if found is None:
            found = self._prefilled(prompt)
        self._keep(prompt, found)
        return found

    def _prefilled(self, prompt: tuple[int, ...]) -> tuple[jax.Array, KVCache]:
        capacity = next(capacity for capacity in self._capacities if capacity >= len(prompt))
        ends = self._ends(prompt)
        start, cache = self._shared(prompt, ends, capacity)
        prefill, logits = prefiller(target_device_kind(), PIECES[0]), None
        for begin, stop in zip((0, *ends[:-1]), ends, strict=True):
            if stop <= start:
                continue
            tokens = np.zeros((1, next(size for size in PIECES if size >= stop - begin)), np.int32)
            tokens[0, : stop - begin] = prompt[begin:stop]
            logits, cache = prefill(self._model, tokens, np.int32(begin), np.int32(stop - begin - 1), cache)
            self.num_pieces += 1
            if prompt[:stop] == self._header:
                self._keep(self._header, (logits, cache))
        assert logits is not None  # a whole prompt that is kept is not prefilled, so its last piece is computed
        return logits, cache

    def _ends(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        """Where the pieces of a prompt end: its own numbers alone decide."""
        split = len(self._header) if self._header and prompt[: len(self._header)] == self._header else 0
        parts = ((0, split), (split, len(prompt)))
        return tuple(min(begin + PIECES[-1], stop) for first, stop in parts for begin in range(first, stop, PIECES[-1]))

    def _shared(self, prompt: tuple[int, ...], ends: tuple[int, ...], capacity: int) -> tuple[int, KVCache]:
        """The end of the last piece that need not be computed, and the cache that holds what is before it."""
        best, source = 0, None
        for kept, (_, cache) in self._kept.items():
            theirs = set(self._ends(kept))
            common = max((end for end in ends[:-1] if end in theirs and kept[:end] == prompt[:end]), default=0)
            if common > best:
                best, source = common, cache
        if source is None:
            return 0, new_cache(self._model, 1, capacity, self._dtype)
        return best, resized(self._model, source, capacity)

    def _keep(self, prompt: tuple[int, ...], held: tuple[jax.Array, KVCache]) -> None:
        self._kept[prompt] = held
        self._kept.move_to_end(prompt)
        if self._header in self._kept:  # every prompt's start: it is never the one that goes
            self._kept.move_to_end(self._header)
        while len(self._kept) > NUM_KEPT:
            self._kept.popitem(last=False)
