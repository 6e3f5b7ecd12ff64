"""The state of the sampler on its devices, a row a slot, and the programs over it: prefill, begin, decode, end, resize."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wizardcoder_jax.core.xla_flags import sampling_options
from wizardcoder_jax.inference.request import GenerationRequest, Needs, Options
from wizardcoder_jax.inference.token_selection import choose
from wizardcoder_jax.models.kv_cache import cache_axes
from wizardcoder_jax.models.transformer import KVCache, Transformer

DECODE_STEPS = 16  # tokens between two looks of the host at the slots


class DecodeState(NamedTuple):
    """What is in each slot; every array is [B] but `keys`, [B, 2], `seen`, [B, V], and `history`."""

    tokens: jax.Array  # last token, not yet in the cache
    positions: jax.Array  # its position
    limits: jax.Array  # tokens of prompt and answer together
    keys: jax.Array  # uint32
    active: jax.Array  # bool
    options: Options
    seen: jax.Array  # bool: tokens of prompt and answer; [B, 0] where no row needs them
    history: jax.Array  # [B, max_length] tokens of prompt and answer in order; [B, 0] where none are guessed


class Emitted(NamedTuple):
    """Tokens [B] that were chosen, or [n, B] of some steps, in order; -1 where there is none."""

    tokens: jax.Array
    logprobs: jax.Array | None  # float32
    likeliest: tuple[jax.Array, jax.Array] | None  # [..., n] log-probabilities and ids


def _everywhere(model: Transformer, tree: Any) -> Any:
    """Small arrays, whole on every device: each process can read them, and programs find them as they left them."""
    return jax.tree.map(lambda array: model.rules.constrain(array, *(None,) * array.ndim), tree)


@functools.partial(jax.jit, static_argnames=("batch", "capacity", "dtype"), keep_unused=True)  # to lie where the model lies
def new_cache(model: Transformer, batch: int, capacity: int, dtype: jnp.dtype) -> KVCache:
    """An empty cache."""
    return model.empty_cache(batch, capacity, dtype)


@functools.partial(jax.jit, static_argnames="capacity", keep_unused=True)
def resized(model: Transformer, cache: KVCache, capacity: int) -> KVCache:
    """The cache with so many slots a sequence; of more, the last are cut off."""
    axes = cache_axes(model.rules, model.arch.num_kv_heads)
    layers = tuple(layer.resized(capacity) for layer in cache)
    return jax.tree.map(lambda array: model.rules.constrain(array, *axes), layers)


@functools.partial(jax.jit, static_argnames=("num_slots", "history_length"), keep_unused=True)
def new_slots(model: Transformer, num_slots: int, history_length: int) -> DecodeState:
    """Free slots."""
    n, reals = num_slots, functools.partial(jnp.ones, num_slots, jnp.float32)
    ints = functools.partial(jnp.zeros, n, jnp.int32)
    options = Options(reals(), reals(), ints(), reals(), reals())
    keys, seen, history = jnp.zeros((n, 2), jnp.uint32), jnp.zeros((n, 0), bool), jnp.zeros((n, history_length), jnp.int32)
    return _everywhere(model, DecodeState(ints(), ints(), ints(), keys, jnp.zeros(n, bool), options, seen, history))


@jax.jit
def with_seen(model: Transformer, slots: DecodeState, seen: jax.Array) -> DecodeState:
    """The slots with another table of the tokens that have occurred."""
    return _everywhere(model, slots._replace(seen=seen))


@functools.partial(jax.jit, donate_argnames="slots")
def end(model: Transformer, slots: DecodeState, row: jax.Array) -> DecodeState:
    """The slots, that of `row` free."""
    return _everywhere(model, slots._replace(active=slots.active.at[row].set(False)))


def prefill_piece(
    model: Transformer, tokens: jax.Array, start: jax.Array, last: jax.Array, cache: KVCache
) -> tuple[jax.Array, KVCache]:
    """Tokens [1, T] from position `start` on -> the logits [1, V] after the token at index `last`, and the cache."""
    positions = start + jnp.arange(tokens.shape[1])[None]
    hidden, cache = model.extend(tokens, positions, cache)
    return model.logits(jax.lax.dynamic_index_in_dim(hidden, last, axis=1, keepdims=False)), cache


@functools.cache
def prefiller(device_kind: str, least_tokens: int) -> Any:
    """`prefill_piece`, to be compiled for devices of a kind and pieces of no fewer tokens."""
    return jax.jit(prefill_piece, compiler_options=sampling_options(device_kind, least_tokens))


@functools.partial(jax.jit, static_argnames="needs", donate_argnames=("slots", "cache"))
def begin(
    model: Transformer,
    slots: DecodeState,
    cache: KVCache,
    row: jax.Array,
    one: DecodeState,
    logits: jax.Array,
    prompt: KVCache,
    needs: Needs,
) -> tuple[DecodeState, KVCache, Emitted]:
    """Puts a prefilled prompt into slot `row`, and the first token of its answer.

    Args:
        model: the weights.
        slots: all of them.
        cache: of all.
        row: which slot.
        one: what the slot holds, a batch of one; its token is chosen here.
        logits: [1, V] at the end of the prompt.
        prompt: the cache of the prompt, a batch of one with no more slots than `cache`.
        needs: the steps of the choice.
    """
    emitted = _chosen(model, logits, one, one.positions, needs)
    one = _with_token(one, emitted.tokens, one.positions, one.active, needs)
    put = lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part.astype(whole.dtype), row, axis=0)  # noqa: E731
    slots = _everywhere(model, jax.tree.map(put, slots, one))
    return slots, _put(model, cache, prompt, row), _everywhere(model, jax.tree.map(lambda array: array[0], emitted))


def _put(model: Transformer, cache: KVCache, prompt: KVCache, row: jax.Array) -> KVCache:
    """The cache with a prompt's in the place of `row`; of the devices only those that hold the row have anything to do."""
    rows, *rest = axes = cache_axes(model.rules, model.arch.num_kv_heads)

    def put(array: jax.Array, prompt: jax.Array) -> jax.Array:
        def part(array: jax.Array, prompt: jax.Array, places: jax.Array, row: jax.Array) -> jax.Array:
            here = row - places[0]
            slot = jnp.clip(here, 0, len(places) - 1)
            start = (slot, 0, 0, 0)
            old = jax.lax.dynamic_slice(array, start, prompt.shape)
            new = jnp.where(here == slot, prompt, old)
            return jax.lax.dynamic_update_slice(array, new, start)

        places = jnp.arange(len(array))
        run = model.rules.shard_map(part, (axes, (None, *rest), (rows,), ()), (array.shape, axes))
        return run(array, prompt, places, row)

    return jax.tree.map(put, cache, prompt)


def decode(
    model: Transformer, slots: DecodeState, cache: KVCache, eos_ids: jax.Array, needs: Needs, num_guessed: int
) -> tuple[DecodeState, KVCache, Emitted, jax.Array]:
    """DECODE_STEPS steps of every active slot, fewer where all end; also how many steps it took.

    A step gives one token, and as many more as were guessed right: the tokens that followed the last two where they stood
    before (prompt lookup; Saxena 2023) are computed with in the same step, and kept as far as they are what is chosen.
    """

    def running(state: tuple[jax.Array, DecodeState, KVCache, Emitted]) -> jax.Array:
        return (state[0] < DECODE_STEPS) & state[1].active.any()

    def step(state: tuple[jax.Array, DecodeState, KVCache, Emitted]) -> tuple[jax.Array, DecodeState, KVCache, Emitted]:
        i, slots, cache, whole = state
        guessed = _guessed(slots, num_guessed)
        tokens = jnp.concatenate([slots.tokens[:, None], guessed], axis=1)
        hidden, cache = model.extend(tokens, slots.positions[:, None] + jnp.arange(1 + num_guessed), cache)
        given, slots = _taken(model, hidden, guessed, slots, eos_ids, needs)
        return i + 1, slots, cache, jax.tree.map(lambda array, new: array.at[i].set(new), whole, given)

    whole = _nothing((DECODE_STEPS, 1 + num_guessed, slots.tokens.shape[0]), needs)
    num_steps, slots, cache, whole = jax.lax.while_loop(running, step, (jnp.int32(0), slots, cache, whole))
    whole = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), whole)
    return _everywhere(model, slots), cache, _everywhere(model, whole), num_steps


@functools.cache
def decoder(device_kind: str, num_rows: int) -> Any:
    """`decode`, to be compiled for devices of a kind and so many tokens a step; slots and cache are donated."""
    static, donated = ("needs", "num_guessed"), ("slots", "cache")
    options = sampling_options(device_kind, num_rows)
    return jax.jit(decode, static_argnames=static, donate_argnames=donated, compiler_options=options)


def _guessed(slots: DecodeState, num_guessed: int) -> jax.Array:
    """What followed the last two tokens where they last stood before, [B, num_guessed]; 0 where nothing did."""
    if not num_guessed:
        return jnp.zeros((len(slots.tokens), 0), jnp.int32)
    history, here = slots.history, slots.positions[:, None]
    places = jnp.arange(1, history.shape[1])
    before = jnp.take_along_axis(history, jnp.maximum(here - 1, 0), axis=1)
    same = (history[:, 1:] == slots.tokens[:, None]) & (history[:, :-1] == before) & (places < here)
    last = jnp.where(same, places, 0).max(-1, keepdims=True)
    following = last + 1 + jnp.arange(num_guessed)
    found = jnp.take_along_axis(history, jnp.minimum(following, history.shape[1] - 1), axis=1)
    return jnp.where((last > 0) & (following <= here), found, 0)


def _taken(
    model: Transformer, hidden: jax.Array, guessed: jax.Array, slots: DecodeState, eos_ids: jax.Array, needs: Needs
) -> tuple[Emitted, DecodeState]:
    """The tokens of one step, [1 + num_guessed, B]: one is chosen, and while a guess is what was chosen, the next."""
    emitted, going_on = [], slots.active
    for place in range(1 + guessed.shape[1]):
        positions = slots.positions + 1
        chosen = _chosen(model, model.logits(hidden[:, place]), slots, positions, needs)
        emitted.append(chosen._replace(tokens=jnp.where(going_on, chosen.tokens, -1)))
        slots = _with_token(slots, chosen.tokens, positions, going_on, needs)
        ended = (chosen.tokens[:, None] == eos_ids).any(-1) | (positions >= slots.limits - 1)
        slots = slots._replace(active=slots.active & ~(going_on & ended))
        if place < guessed.shape[1]:
            going_on &= ~ended & (guessed[:, place] == chosen.tokens)
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *emitted), slots


def _with_token(slots: DecodeState, tokens: jax.Array, positions: jax.Array, going_on: jax.Array, needs: Needs) -> DecodeState:
    """The slots, those that go on with another last token at `positions`."""
    rows, seen, history = jnp.arange(len(tokens)), slots.seen, slots.history
    if needs.repetition_penalty:
        seen = seen.at[rows, tokens].max(going_on)
    if history.shape[1]:
        history = history.at[rows, jnp.where(going_on, positions, history.shape[1])].set(tokens, mode="drop")
    put = lambda new, old: jnp.where(going_on, new, old)  # noqa: E731
    return slots._replace(
        tokens=put(tokens, slots.tokens), positions=put(positions, slots.positions), seen=seen, history=history
    )


def uniform(keys: jax.Array, positions: jax.Array, attempt: jax.Array) -> jax.Array:
    """One number in [0, 1) a row, from the row's key, the position of the token that it chooses, and the attempt."""

    def draw(key: jax.Array, position: jax.Array) -> jax.Array:
        folded = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(key), position), attempt)
        return jax.random.uniform(folded)

    return jax.vmap(draw)(keys, positions)


def _chosen(model: Transformer, logits: jax.Array, slots: DecodeState, positions: jax.Array, needs: Needs) -> Emitted:
    logits = model.rules.constrain(
        model.rules.constrain(logits, "batch", "logits"), "cache_batch", None
    )  # each device's own rows
    draw = functools.partial(uniform, slots.keys, positions)
    tokens = choose(logits, slots.seen, draw, slots.options, needs)
    if needs.num_logprobs is None:
        return Emitted(tokens, None, None)
    logprobs = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(logprobs, tokens[:, None], axis=1)[:, 0]
    if not needs.num_logprobs:
        return Emitted(tokens, own, None)
    values, ids = jax.lax.top_k(logprobs, needs.num_logprobs)
    return Emitted(tokens, own, (values, ids))


def _nothing(shape: tuple[int, ...], needs: Needs) -> Emitted:
    n = needs.num_logprobs
    tokens = jnp.full(shape, -1, jnp.int32)
    if n is None:
        return Emitted(tokens, None, None)
    reals = jnp.zeros(shape, jnp.float32)
    return Emitted(tokens, reals, (jnp.zeros((*shape, n), jnp.float32), jnp.zeros((*shape, n), jnp.int32)) if n else None)


def fresh_slot(request: GenerationRequest, vocab_size: int, num_seen: int, history_length: int) -> DecodeState:
    """What a slot holds at the end of a prompt, a batch of one, as NumPy's arrays."""
    prompt = np.array(request.prompt, np.int32)
    seen, history = np.zeros((1, num_seen), bool), np.zeros((1, history_length), np.int32)
    if num_seen:
        seen[0, prompt] = True
    if history_length:
        history[0, : len(prompt)] = prompt
    one: Any = DecodeState(
        tokens=np.zeros(1, np.int32),  # type: ignore[arg-type]
        positions=np.array([len(prompt)], np.int32),  # type: ignore[arg-type]
        limits=np.array([request.max_length], np.int32),  # type: ignore[arg-type]
        keys=np.array([request.key], np.uint32),  # type: ignore[arg-type]
        active=np.ones(1, bool),  # type: ignore[arg-type]
        options=Options.of(request.decoding, vocab_size),
        seen=seen,  # type: ignore[arg-type]
        history=history,  # type: ignore[arg-type]
    )
    return one
