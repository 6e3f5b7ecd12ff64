"""The state of the sampler on its devices, a row a slot, and the programs over it: prefill, begin, decode, end, resize."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wizardcoder_jax.model.attention import LayerCache
from wizardcoder_jax.model.transformer import KVCache, Transformer
from wizardcoder_jax.sampling.choose import choose
from wizardcoder_jax.sampling.decoding import Needs, Options

DECODE_STEPS = 16  # tokens between two looks of the host at the slots


class Slots(NamedTuple):
    """What is in each slot; every array is [B] but `keys`, [B, 2], and `seen`, [B, V]."""

    tokens: jax.Array  # last token, not yet in the cache
    positions: jax.Array  # its position
    limits: jax.Array  # tokens of prompt and answer together
    keys: jax.Array  # uint32
    active: jax.Array  # bool
    options: Options
    seen: jax.Array  # bool: tokens of prompt and answer; [B, 0] where no row needs them


class Emitted(NamedTuple):
    """Tokens of DECODE_STEPS steps, [steps, B], or of one, [B]; -1 where a slot had ended."""

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

    def fitted(array: jax.Array, axis: int) -> jax.Array:
        held = jax.lax.slice_in_dim(array, 0, min(capacity, array.shape[axis]), axis=axis)
        widths = [(0, 0)] * array.ndim
        widths[axis] = (0, capacity - held.shape[axis])
        return model.rules.constrain(jnp.pad(held, widths), "batch", "kv_heads", None, None)

    layers = lambda layer: LayerCache(fitted(layer.keys, layer.keys.ndim - 1), fitted(layer.values, layer.values.ndim - 2))  # noqa: E731
    return layers(cache) if isinstance(cache, LayerCache) else tuple(layers(layer) for layer in cache)


@functools.partial(jax.jit, static_argnames=("num_slots", "num_seen"), keep_unused=True)
def new_slots(model: Transformer, num_slots: int, num_seen: int) -> Slots:
    """Free slots."""
    n, reals = num_slots, functools.partial(jnp.ones, num_slots, jnp.float32)
    ints = functools.partial(jnp.zeros, n, jnp.int32)
    options = Options(reals(), reals(), ints(), reals(), reals())
    keys, seen = jnp.zeros((n, 2), jnp.uint32), jnp.zeros((n, num_seen), bool)
    return _everywhere(model, Slots(ints(), ints(), ints(), keys, jnp.zeros(n, bool), options, seen))


@jax.jit
def with_seen(model: Transformer, slots: Slots, seen: jax.Array) -> Slots:
    """The slots with another table of the tokens that have occurred."""
    return _everywhere(model, slots._replace(seen=seen))


@functools.partial(jax.jit, donate_argnames="slots")
def end(model: Transformer, slots: Slots, row: jax.Array) -> Slots:
    """The slots, that of `row` free."""
    return _everywhere(model, slots._replace(active=slots.active.at[row].set(False)))


@jax.jit
def prefill_piece(
    model: Transformer, tokens: jax.Array, start: jax.Array, last: jax.Array, cache: KVCache
) -> tuple[jax.Array, KVCache]:
    """Tokens [1, T] from position `start` on -> the logits [1, V] after the token at index `last`, and the cache."""
    positions = start + jnp.arange(tokens.shape[1])[None]
    hidden, cache = model.extend(tokens, positions, cache)
    return model.logits(jax.lax.dynamic_index_in_dim(hidden, last, axis=1, keepdims=False)), cache


@functools.partial(jax.jit, static_argnames="needs", donate_argnames=("slots", "cache"))
def begin(
    model: Transformer,
    slots: Slots,
    cache: KVCache,
    row: jax.Array,
    one: Slots,
    logits: jax.Array,
    prompt: KVCache,
    needs: Needs,
) -> tuple[Slots, KVCache, Emitted]:
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
    emitted = _chosen(logits, one, one.positions, needs)
    one = one._replace(tokens=emitted.tokens, seen=_marked(one.seen, emitted.tokens, needs))
    put = lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part.astype(whole.dtype), row, axis=0)  # noqa: E731
    put_cache = lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, row, axis=whole.ndim - 4)  # noqa: E731
    slots = _everywhere(model, jax.tree.map(put, slots, one))
    return slots, jax.tree.map(put_cache, cache, prompt), _everywhere(model, jax.tree.map(lambda array: array[0], emitted))


@functools.partial(jax.jit, static_argnames="needs", donate_argnames=("slots", "cache"))
def decode(
    model: Transformer, slots: Slots, cache: KVCache, eos_ids: jax.Array, needs: Needs
) -> tuple[Slots, KVCache, Emitted, jax.Array]:
    """Up to DECODE_STEPS tokens of every active slot; also how many steps it took."""

    def running(state: tuple[jax.Array, Slots, KVCache, Emitted]) -> jax.Array:
        return (state[0] < DECODE_STEPS) & state[1].active.any()

    def step(state: tuple[jax.Array, Slots, KVCache, Emitted]) -> tuple[jax.Array, Slots, KVCache, Emitted]:
        i, slots, cache, whole = state
        hidden, cache = model.extend(slots.tokens[:, None], slots.positions[:, None], cache)
        positions = slots.positions + 1
        emitted = _chosen(model.logits(hidden[:, 0]), slots, positions, needs)
        tokens = emitted.tokens
        emitted = emitted._replace(tokens=jnp.where(slots.active, tokens, -1))
        whole = jax.tree.map(lambda array, new: array.at[i].set(new), whole, emitted)
        active = slots.active & ~(tokens[:, None] == eos_ids).any(-1) & (positions < slots.limits - 1)
        seen = _marked(slots.seen, tokens, needs)
        return i + 1, slots._replace(tokens=tokens, positions=positions, active=active, seen=seen), cache, whole

    whole = _nothing(slots.tokens.shape[0], needs)
    num_steps, slots, cache, whole = jax.lax.while_loop(running, step, (jnp.int32(0), slots, cache, whole))
    return _everywhere(model, slots), cache, _everywhere(model, whole), num_steps


def uniform(keys: jax.Array, positions: jax.Array, attempt: jax.Array) -> jax.Array:
    """One number in [0, 1) a row, from the row's key, the position of the token that it chooses, and the attempt."""

    def draw(key: jax.Array, position: jax.Array) -> jax.Array:
        folded = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(key), position), attempt)
        return jax.random.uniform(folded)

    return jax.vmap(draw)(keys, positions)


def _chosen(logits: jax.Array, slots: Slots, positions: jax.Array, needs: Needs) -> Emitted:
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


def _marked(seen: jax.Array, tokens: jax.Array, needs: Needs) -> jax.Array:
    return seen.at[jnp.arange(len(tokens)), tokens].set(True) if needs.repetition_penalty else seen


def _nothing(num_slots: int, needs: Needs) -> Emitted:
    shape, n = (DECODE_STEPS, num_slots), needs.num_logprobs
    tokens = jnp.full(shape, -1, jnp.int32)
    if n is None:
        return Emitted(tokens, None, None)
    reals = jnp.zeros(shape, jnp.float32)
    return Emitted(tokens, reals, (jnp.zeros((*shape, n), jnp.float32), jnp.zeros((*shape, n), jnp.int32)) if n else None)


def fresh_slot(prompt: np.ndarray, key: tuple[int, int], limit: int, options: Options, num_seen: int) -> Slots:
    """What a slot holds at the end of its prompt, a batch of one, as NumPy's arrays."""
    seen = np.zeros((1, num_seen), bool)
    if num_seen:
        seen[0, prompt] = True
    position, one = np.array([len(prompt)], np.int32), np.array([limit], np.int32)
    words = np.array([key], np.uint32)
    slots: Any = Slots(np.zeros(1, np.int32), position, one, words, np.ones(1, bool), options, seen)  # type: ignore[arg-type]
    return slots
