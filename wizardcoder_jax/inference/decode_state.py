"""State of the engine on the devices, with one row per slot, and the functions that create and update it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wizardcoder_jax.inference.request import BatchSamplingParams, GenerationRequest
from wizardcoder_jax.models.kv_cache import cache_axes
from wizardcoder_jax.models.transformer import KVCache, Transformer


class DecodeState(NamedTuple):
    """Contents of the slots. Arrays have shape [B] unless another shape is given; B is the number of rows."""

    tokens: jax.Array  # int32: last token of each row, which is not in the KV cache yet
    positions: jax.Array  # int32: position of the last token
    limits: jax.Array  # int32: maximum number of tokens in prompt and answer together
    keys: jax.Array  # uint32 [B, 2]: random keys
    active: jax.Array  # bool: whether the slot has an unfinished answer
    params: BatchSamplingParams
    seen: jax.Array  # bool [B, V]: whether a token id has occurred in prompt or answer; [B, 0] if no row needs it
    history: jax.Array  # int32 [B, max_length]: tokens of prompt and answer in order; [B, 0] without draft tokens


class StepOutput(NamedTuple):
    """Output of one decode step, as arrays of shape [B], or of N steps, as arrays of shape [N, B]."""

    tokens: jax.Array  # int32: selected token ids; -1 if the row produced no token
    logprobs: jax.Array | None  # float32: log-probabilities of the selected tokens
    top: tuple[jax.Array, jax.Array] | None  # log-probabilities and ids, [..., K], of the K most likely tokens


def replicate(model: Transformer, tree: Any) -> Any:
    """Replicate small arrays on every device, so that every process can read them and their sharding never changes."""
    return jax.tree.map(lambda array: model.rules.constrain(array, *(None,) * array.ndim), tree)


# keep_unused, here and below: the weights are unused, but their devices determine the devices of the result.
@functools.partial(jax.jit, static_argnames=("batch", "capacity", "dtype"), keep_unused=True)
def new_cache(model: Transformer, batch: int, capacity: int, dtype: jnp.dtype) -> KVCache:
    """Create an empty KV cache for `batch` sequences of up to `capacity` tokens."""
    return model.empty_cache(batch, capacity, dtype)


@functools.partial(jax.jit, static_argnames="capacity", keep_unused=True)
def resize_cache(model: Transformer, cache: KVCache, capacity: int) -> KVCache:
    """Return the cache resized to `capacity` tokens per sequence; positions beyond it are dropped."""
    axes = cache_axes(model.rules, model.arch.num_kv_heads)
    layers = tuple(layer.resize(capacity) for layer in cache)
    return jax.tree.map(lambda array: model.rules.constrain(array, *axes), layers)


@functools.partial(jax.jit, static_argnames=("num_slots", "history_length"), keep_unused=True)
def new_state(model: Transformer, num_slots: int, history_length: int) -> DecodeState:
    """Create a state in which every slot is free."""
    n, ones = num_slots, functools.partial(jnp.ones, num_slots, jnp.float32)
    zeros = functools.partial(jnp.zeros, n, jnp.int32)
    params = BatchSamplingParams(ones(), ones(), zeros(), ones(), ones())
    keys, seen, history = jnp.zeros((n, 2), jnp.uint32), jnp.zeros((n, 0), bool), jnp.zeros((n, history_length), jnp.int32)
    return replicate(model, DecodeState(zeros(), zeros(), zeros(), keys, jnp.zeros(n, bool), params, seen, history))


@jax.jit
def replace_seen(model: Transformer, state: DecodeState, seen: jax.Array) -> DecodeState:
    """Return the state with a new `seen` table."""
    return replicate(model, state._replace(seen=seen))


@functools.partial(jax.jit, donate_argnames="state")
def free_slot(model: Transformer, state: DecodeState, row: jax.Array) -> DecodeState:
    """Return the state with slot `row` inactive."""
    return replicate(model, state._replace(active=state.active.at[row].set(False)))


def slot_of(request: GenerationRequest, vocab_size: int, num_seen: int, history_length: int) -> DecodeState:
    """Return the contents of a slot after prefill: a state with one row, as NumPy arrays.

    Args:
        request: the request that takes the slot.
        vocab_size: padded vocabulary size of the model.
        num_seen: width of `seen`; 0 if it is not needed.
        history_length: width of `history`; 0 without draft tokens.
    """
    prompt = np.array(request.prompt, np.int32)
    seen, history = np.zeros((1, num_seen), bool), np.zeros((1, history_length), np.int32)
    if num_seen:
        seen[0, prompt] = True
    if history_length:
        history[0, : len(prompt)] = prompt
    slot: Any = DecodeState(
        tokens=np.zeros(1, np.int32),  # type: ignore[arg-type]
        positions=np.array([len(prompt)], np.int32),  # type: ignore[arg-type]
        limits=np.array([request.max_length], np.int32),  # type: ignore[arg-type]
        keys=np.array([request.key], np.uint32),  # type: ignore[arg-type]
        active=np.ones(1, bool),  # type: ignore[arg-type]
        params=BatchSamplingParams.from_params(request.params, vocab_size),
        seen=seen,  # type: ignore[arg-type]
        history=history,  # type: ignore[arg-type]
    )
    return slot
