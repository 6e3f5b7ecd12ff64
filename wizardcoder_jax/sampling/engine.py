"""Continuous batching: a fixed number of slots, each decoding one answer; a slot that ends is given the next prompt.

Prompts are prefilled one at a time in pieces of a fixed length, so that one compiled program serves all lengths, and an
answer does not depend on what else is in the batch.

Several processes of one run each call this with the same requests: whatever the host decides by is replicated, so that all of
them decide alike, and what it hands in is NumPy's, which is the same for every process.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wizardcoder_jax.model.transformer import KVCache, Transformer
from wizardcoder_jax.sampling.choose import choose

PREFILL_PIECE = 128  # prompt tokens a call
DECODE_STEPS = 16  # tokens between two looks of the host at the slots


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """How tokens are chosen and where answers end."""

    temperature: float
    top_p: float
    eos_id: int
    max_length: int  # tokens of prompt and answer together: the slots of the KV cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One answer that is wanted."""

    prompt: tuple[int, ...]  # token ids
    key: tuple[int, int]  # two 32-bit words: all randomness of this answer
    max_tokens: int | None = None  # of the answer, where there is a limit besides max_length


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer."""

    tokens: list[int]  # without the end-of-text token
    finish_reason: str  # "stop": end of text or a stop string; "length": max_length or max_tokens reached


class Slots(NamedTuple):
    """What is in each slot; every array is [B] but `keys`, [B, 2]."""

    tokens: jax.Array  # last token, not yet in the cache
    positions: jax.Array  # its position
    keys: jax.Array  # uint32
    active: jax.Array  # bool


def _everywhere(model: Transformer, tree: Any) -> Any:
    """Small arrays, whole on every device: each process can read them, and programs find them as they left them."""
    return jax.tree.map(lambda array: model.rules.constrain(array, *(None,) * array.ndim), tree)


@functools.partial(jax.jit, static_argnames=("batch", "num_slots", "dtype"))
def _new_cache(model: Transformer, batch: int, num_slots: int, dtype: jnp.dtype) -> KVCache:
    return model.empty_cache(batch, num_slots, dtype)


@functools.partial(jax.jit, static_argnames="num_slots")
def _no_answers(model: Transformer, num_slots: int) -> Slots:
    n = num_slots
    slots = Slots(jnp.zeros(n, jnp.int32), jnp.zeros(n, jnp.int32), jnp.zeros((n, 2), jnp.uint32), jnp.zeros(n, bool))
    return _everywhere(model, slots)


@functools.partial(jax.jit, donate_argnames="slots")
def _end(model: Transformer, slots: Slots, row: jax.Array) -> Slots:
    """The slots, that of `row` free."""
    return _everywhere(model, slots._replace(active=slots.active.at[row].set(False)))


def _uniform(keys: jax.Array, positions: jax.Array) -> jax.Array:
    """One number in [0, 1) a row, from the row's key and the position of the token that it chooses."""
    draw = lambda key, position: jax.random.uniform(jax.random.fold_in(jax.random.wrap_key_data(key), position))  # noqa: E731
    return jax.vmap(draw)(keys, positions)


@functools.partial(jax.jit, donate_argnames="cache")
def _prefill_piece(
    model: Transformer, tokens: jax.Array, start: jax.Array, last: jax.Array, cache: KVCache
) -> tuple[jax.Array, KVCache]:
    """Tokens [1, T] from position `start` on -> the logits [1, V] after the token at index `last`, and the cache."""
    positions = start + jnp.arange(tokens.shape[1])[None]
    hidden, cache = model.extend(tokens, positions, cache)
    return model.logits(jax.lax.dynamic_index_in_dim(hidden, last, axis=1, keepdims=False)), cache


@functools.partial(jax.jit, static_argnames="decoding")
def _first_token(model: Transformer, logits: jax.Array, key: jax.Array, position: jax.Array, decoding: Decoding) -> jax.Array:
    """The first token of an answer, from the logits [1, V] at the end of its prompt."""
    token = choose(logits, _uniform(key[None], position[None]), decoding.temperature, decoding.top_p)[0]
    return _everywhere(model, token)


@functools.partial(jax.jit, donate_argnames=("slots", "cache"))
def _insert(
    model: Transformer,
    slots: Slots,
    cache: KVCache,
    row: jax.Array,
    token: jax.Array,
    position: jax.Array,
    key: jax.Array,
    prompt: KVCache,
) -> tuple[Slots, KVCache]:
    """Puts a prefilled prompt and the first token of its answer into slot `row`."""
    put = lambda whole, one: jax.lax.dynamic_update_slice_in_dim(whole, one, row, axis=whole.ndim - 4)  # noqa: E731
    slots = Slots(
        slots.tokens.at[row].set(token),
        slots.positions.at[row].set(position),
        slots.keys.at[row].set(key),
        slots.active.at[row].set(True),
    )
    return _everywhere(model, slots), jax.tree.map(put, cache, prompt)


@functools.partial(jax.jit, static_argnames="decoding", donate_argnames=("slots", "cache"))
def _decode(model: Transformer, slots: Slots, cache: KVCache, decoding: Decoding) -> tuple[Slots, KVCache, jax.Array]:
    """Up to DECODE_STEPS tokens of every active slot; returns them [DECODE_STEPS, B], -1 where a slot had ended."""

    def running(state: tuple[jax.Array, Slots, KVCache, jax.Array]) -> jax.Array:
        return (state[0] < DECODE_STEPS) & state[1].active.any()

    def step(state: tuple[jax.Array, Slots, KVCache, jax.Array]) -> tuple[jax.Array, Slots, KVCache, jax.Array]:
        i, slots, cache, emitted = state
        hidden, cache = model.extend(slots.tokens[:, None], slots.positions[:, None], cache)
        positions = slots.positions + 1
        logits = model.logits(hidden[:, 0])
        tokens = choose(logits, _uniform(slots.keys, positions), decoding.temperature, decoding.top_p)
        emitted = emitted.at[i].set(jnp.where(slots.active, tokens, -1))
        active = slots.active & (tokens != decoding.eos_id) & (positions < decoding.max_length - 1)
        return i + 1, Slots(tokens, positions, slots.keys, active), cache, emitted

    emitted = jnp.full((DECODE_STEPS, slots.tokens.shape[0]), -1, jnp.int32)
    _, slots, cache, emitted = jax.lax.while_loop(running, step, (jnp.int32(0), slots, cache, emitted))
    return _everywhere(model, slots), cache, _everywhere(model, emitted)


class Engine:
    """Answers requests with one model.

    Args:
        model: the weights; blocks apart (`Transformer.unstacked`) on CPU, stacked elsewhere.
        decoding: how tokens are chosen.
        num_slots: answers decoded together.
        dtype: of activations and cache.
    """

    def __init__(self, model: Transformer, decoding: Decoding, num_slots: int, dtype: jnp.dtype) -> None:
        self._model, self._decoding, self._num_slots, self._dtype = model, decoding, num_slots, dtype
        self._prompt: tuple[tuple[int, ...], jax.Array, KVCache] | None = None

    def answer(
        self, requests: Sequence[Request], stopped: Callable[[list[int]], bool] | None = None
    ) -> Iterator[tuple[int, Answer]]:
        """Yields (index, answer) as answers end; requests with equal prompts, side by side, share one prefill.

        Args:
            requests: prompts shorter than `max_length`.
            stopped: whether the tokens so far hold a stop string.
        """
        waiting = iter(requests)
        return self.stream(lambda _: next(waiting, None), stopped)

    def stream(
        self, pull: Callable[[bool], Request | None], stopped: Callable[[list[int]], bool] | None = None
    ) -> Iterator[tuple[int, Answer]]:
        """As `answer`, for requests that come while others are answered; an index is a request's number among them all.

        Args:
            pull: the next request, or None: there is none now. Its argument says that no answer is in progress: it may wait,
                and None then ends the stream.
            stopped: as in `answer`.
        """
        num_pulled = 0
        held: dict[int, tuple[int, Request, list[int]]] = {}  # slot -> (index, request, tokens)
        slots, cache = _no_answers(self._model, self._num_slots), self._cache(self._num_slots)
        while True:
            for row in range(self._num_slots):
                while row not in held and (request := pull(not held)) is not None:
                    index, num_pulled = num_pulled, num_pulled + 1
                    token, slots, cache = self._start(request, row, slots, cache)
                    ended = self._ended([token], request, stopped)
                    if ended is None:
                        held[row] = (index, request, [token])
                    else:
                        slots = _end(self._model, slots, np.int32(row))
                        yield index, ended
            if not held:
                return
            slots, cache, emitted = _decode(self._model, slots, cache, self._decoding)
            for row, column in enumerate(np.asarray(emitted).T):
                if row not in held:
                    continue
                index, request, tokens = held[row]
                tokens.extend(int(token) for token in column if token >= 0)
                ended = self._ended(tokens, request, stopped)
                if ended is not None:
                    del held[row]
                    slots = _end(self._model, slots, np.int32(row))
                    yield index, ended

    def _cache(self, batch: int) -> KVCache:
        return _new_cache(self._model, batch, self._decoding.max_length, self._dtype)

    def _start(self, request: Request, row: int, slots: Slots, cache: KVCache) -> tuple[int, Slots, KVCache]:
        logits, prompt_cache = self._prefill(request.prompt)
        key, position = np.array(request.key, np.uint32), np.int32(len(request.prompt))
        token = _first_token(self._model, logits, key, position, self._decoding)
        slots, cache = _insert(self._model, slots, cache, np.int32(row), token, position, key, prompt_cache)
        return int(token), slots, cache

    def _prefill(self, prompt: tuple[int, ...]) -> tuple[jax.Array, KVCache]:
        if self._prompt is not None and self._prompt[0] == prompt:
            return self._prompt[1:]
        cache = self._cache(1)
        logits = jnp.zeros(())
        for start in range(0, len(prompt), PREFILL_PIECE):
            piece = prompt[start : start + PREFILL_PIECE]
            padded = np.zeros((1, PREFILL_PIECE), np.int32)
            padded[0, : len(piece)] = piece
            logits, cache = _prefill_piece(self._model, padded, np.int32(start), np.int32(len(piece) - 1), cache)
        self._prompt = (prompt, logits, cache)
        return logits, cache

    def _ended(self, tokens: list[int], request: Request, stopped: Callable[[list[int]], bool] | None) -> Answer | None:
        if request.max_tokens is not None and len(tokens) > request.max_tokens:
            return Answer(tokens=tokens[: request.max_tokens], finish_reason="length")
        if tokens[-1] == self._decoding.eos_id:
            return Answer(tokens=tokens[:-1], finish_reason="stop")
        if stopped is not None and stopped(tokens):
            return Answer(tokens=tokens, finish_reason="stop")
        most = self._decoding.max_length - len(request.prompt)
        if len(tokens) >= min(most, request.max_tokens or most):
            return Answer(tokens=tokens, finish_reason="length")
        return None
