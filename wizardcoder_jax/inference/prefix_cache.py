"""Cache of the latest prefilled prompts. A prefix that a new prompt shares with a cached one is not computed again."""

from collections import OrderedDict
from collections.abc import Sequence

import jax
import numpy as np

from wizardcoder_jax.core.sharding import target_device_kind
from wizardcoder_jax.inference.decode_state import new_cache, resize_cache
from wizardcoder_jax.inference.engine_programs import prefill_program
from wizardcoder_jax.models.transformer import KVCache, Transformer

# Sizes of prefill chunks in tokens. A prompt is split into chunks of the larger size, and the rest is padded to the smallest
# sufficient size. Prompts share only whole chunks, so that results do not depend on which prompts were prefilled before.
CHUNK_SIZES = (64, 128)
MAX_CACHED_PROMPTS = 4  # maximum number of cached prompts


def common_prefix(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the longest common prefix of all prompts that is shorter than every prompt."""
    first, last = min(prompts), max(prompts)
    length = min(len(first), len(last)) - 1
    return first[: next((i for i in range(length) if first[i] != last[i]), length)]


class PrefixCache:
    """Cache of prefilled prompts. Chunks have only two sizes, so that few programs serve prompts of all lengths.

    Args:
        model: weights.
        capacities: capacities that a KV cache can have, in ascending order.
        dtype: dtype of the KV caches.
        shared_prefix: tokens that many prompts start with; a chunk ends where they end, so that these prompts share it.
    """

    def __init__(
        self, model: Transformer, capacities: tuple[int, ...], dtype: jax.typing.DTypeLike, shared_prefix: tuple[int, ...] = ()
    ) -> None:
        self._model, self._capacities, self._dtype = model, capacities, np.dtype(dtype)
        self._shared_prefix = shared_prefix
        self._entries: OrderedDict[tuple[int, ...], tuple[jax.Array, KVCache]] = OrderedDict()
        self.num_chunks = 0  # number of chunks computed so far

    def get(self, prompt: tuple[int, ...]) -> tuple[jax.Array, KVCache]:
        """Return the logits [1, V] that follow a prompt, and its KV cache: one row with the smallest sufficient capacity."""
        entry = self._entries.get(prompt)
        if entry is None:
            entry = self._prefill(prompt)
        self._store(prompt, entry)
        return entry

    def _prefill(self, prompt: tuple[int, ...]) -> tuple[jax.Array, KVCache]:
        capacity = next(capacity for capacity in self._capacities if capacity >= len(prompt))
        ends = self._chunk_ends(prompt)
        start, cache = self._longest_shared(prompt, ends, capacity)
        prefill, logits = prefill_program(target_device_kind(), CHUNK_SIZES[0]), None
        for begin, stop in zip((0, *ends[:-1]), ends, strict=True):
            if stop <= start:
                continue
            tokens = np.zeros((1, next(size for size in CHUNK_SIZES if size >= stop - begin)), np.int32)
            tokens[0, : stop - begin] = prompt[begin:stop]
            logits, cache = prefill(self._model, tokens, np.int32(begin), np.int32(stop - begin - 1), cache)
            self.num_chunks += 1
            if prompt[:stop] == self._shared_prefix:
                self._store(self._shared_prefix, (logits, cache))
        assert logits is not None  # `get` returns cached prompts, so here at least the last chunk is computed
        return logits, cache

    def _chunk_ends(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        """Return the end positions of a prompt's chunks, which depend only on the prompt and the shared prefix."""
        prefix = self._shared_prefix
        split = len(prefix) if prefix and prompt[: len(prefix)] == prefix else 0
        parts = ((0, split), (split, len(prompt)))
        size = CHUNK_SIZES[-1]
        return tuple(min(begin + size, stop) for first, stop in parts for begin in range(first, stop, size))

    def _longest_shared(self, prompt: tuple[int, ...], ends: tuple[int, ...], capacity: int) -> tuple[int, KVCache]:
        """Return the end of the longest cached prefix of whole chunks, and a KV cache that contains it."""
        best, source = 0, None
        for stored, (_, cache) in self._entries.items():
            stored_ends = set(self._chunk_ends(stored))
            shared = max((end for end in ends[:-1] if end in stored_ends and stored[:end] == prompt[:end]), default=0)
            if shared > best:
                best, source = shared, cache
        if source is None:
            return 0, new_cache(self._model, 1, capacity, self._dtype)
        return best, resize_cache(self._model, source, capacity)

    def _store(self, prompt: tuple[int, ...], entry: tuple[jax.Array, KVCache]) -> None:
        self._entries[prompt] = entry
        self._entries.move_to_end(prompt)
        if self._shared_prefix in self._entries:  # most prompts start with it, so it is never evicted
            self._entries.move_to_end(self._shared_prefix)
        while len(self._entries) > MAX_CACHED_PROMPTS:
            self._entries.popitem(last=False)
