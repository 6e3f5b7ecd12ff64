"""Compiled programs of the engine: prefill a chunk of a prompt, insert a prompt into a slot, and decode."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from wizardcoder_jax.core.xla_flags import sampling_options
from wizardcoder_jax.inference.decode_state import DecodeState, StepOutput, replicate
from wizardcoder_jax.inference.request import SamplingSteps
from wizardcoder_jax.inference.token_selection import select_tokens
from wizardcoder_jax.models.kv_cache import cache_axes
from wizardcoder_jax.models.transformer import KVCache, Transformer

DECODE_STEPS = 16  # number of decode steps per call; the host reads the new tokens after each call


def prefill_chunk(
    model: Transformer, tokens: jax.Array, start: jax.Array, last: jax.Array, cache: KVCache
) -> tuple[jax.Array, KVCache]:
    """Process the tokens [1, T] of a prompt that begin at position `start`.

    Returns:
        The logits [1, V] that follow the token at index `last`, and the extended cache.
    """
    positions = start + jnp.arange(tokens.shape[1])[None]
    hidden, cache = model.extend(tokens, positions, cache)
    return model.logits(jax.lax.dynamic_index_in_dim(hidden, last, axis=1, keepdims=False)), cache


@functools.cache
def prefill_program(device_kind: str, min_tokens: int) -> Any:
    """Return `prefill_chunk`, jitted with the compiler options for a kind of device and chunks of at least `min_tokens`."""
    return jax.jit(prefill_chunk, compiler_options=sampling_options(device_kind, min_tokens))


@functools.partial(jax.jit, static_argnames="steps", donate_argnames=("state", "cache"))
def insert_prompt(
    model: Transformer,
    state: DecodeState,
    cache: KVCache,
    row: jax.Array,
    slot: DecodeState,
    logits: jax.Array,
    prompt_cache: KVCache,
    steps: SamplingSteps,
) -> tuple[DecodeState, KVCache, StepOutput]:
    """Put a prefilled prompt into slot `row` and select the first token of its answer.

    Args:
        model: weights.
        state: state of all slots.
        cache: KV cache of all slots.
        row: index of the slot.
        slot: new contents of the slot, a state with one row from `slot_of`; this function selects its first token.
        logits: logits [1, V] at the end of the prompt.
        prompt_cache: KV cache of the prompt, with one row and at most the capacity of `cache`.
        steps: steps of token selection.

    Returns:
        The state, the KV cache, and the first token of the answer.
    """
    output = _select(model, logits, slot, slot.positions, steps)
    slot = _append_token(slot, output.tokens, slot.positions, slot.active, steps)
    put = lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part.astype(whole.dtype), row, axis=0)  # noqa: E731
    state = replicate(model, jax.tree.map(put, state, slot))
    return (
        state,
        _insert_cache(model, cache, prompt_cache, row),
        replicate(model, jax.tree.map(lambda array: array[0], output)),
    )


def _insert_cache(model: Transformer, cache: KVCache, prompt_cache: KVCache, row: jax.Array) -> KVCache:
    """Write the KV cache of a prompt into `row`; only the devices that store this row write."""
    rows, *rest = axes = cache_axes(model.rules, model.arch.num_kv_heads)

    def insert(array: jax.Array, prompt: jax.Array) -> jax.Array:
        def insert_local(array: jax.Array, prompt: jax.Array, local_rows: jax.Array, row: jax.Array) -> jax.Array:
            local_row = row - local_rows[0]
            slot = jnp.clip(local_row, 0, len(local_rows) - 1)
            start = (slot, 0, 0, 0)
            old = jax.lax.dynamic_slice(array, start, prompt.shape)
            new = jnp.where(local_row == slot, prompt, old)
            return jax.lax.dynamic_update_slice(array, new, start)

        run = model.rules.shard_map(insert_local, (axes, (None, *rest), (rows,), ()), (array.shape, axes))
        return run(array, prompt, jnp.arange(len(array)), row)

    return jax.tree.map(insert, cache, prompt_cache)


def decode(
    model: Transformer, state: DecodeState, cache: KVCache, eos_ids: jax.Array, steps: SamplingSteps, num_draft_tokens: int
) -> tuple[DecodeState, KVCache, StepOutput, jax.Array]:
    """Run DECODE_STEPS decode steps for every active slot, or fewer if all slots become inactive.

    A step produces one token per slot, plus one for each accepted draft token. The draft is the tokens that followed the last
    two tokens at their previous occurrence (prompt lookup decoding; Saxena 2023). A step processes the draft together with the
    last token, and accepts draft tokens up to the first one that differs from the selected token, so the answer does not
    change.

    Returns:
        The state, the cache, the output of all steps, and the number of steps that were run.
    """

    def is_running(carry: tuple[jax.Array, DecodeState, KVCache, StepOutput]) -> jax.Array:
        return (carry[0] < DECODE_STEPS) & carry[1].active.any()

    def step(carry: tuple[jax.Array, DecodeState, KVCache, StepOutput]) -> tuple[jax.Array, DecodeState, KVCache, StepOutput]:
        i, state, cache, outputs = carry
        draft = _draft_tokens(state, num_draft_tokens)
        tokens = jnp.concatenate([state.tokens[:, None], draft], axis=1)
        hidden, cache = model.extend(tokens, state.positions[:, None] + jnp.arange(1 + num_draft_tokens), cache)
        output, state = _accept_tokens(model, hidden, draft, state, eos_ids, steps)
        return i + 1, state, cache, jax.tree.map(lambda array, new: array.at[i].set(new), outputs, output)

    outputs = _empty_output((DECODE_STEPS, 1 + num_draft_tokens, state.tokens.shape[0]), steps)
    num_steps, state, cache, outputs = jax.lax.while_loop(is_running, step, (jnp.int32(0), state, cache, outputs))
    outputs = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), outputs)
    return replicate(model, state), cache, replicate(model, outputs), num_steps


@functools.cache
def decode_program(device_kind: str, num_rows: int) -> Any:
    """Return `decode`, jitted for a kind of device and `num_rows` tokens per step. State and cache are donated."""
    static, donated = ("steps", "num_draft_tokens"), ("state", "cache")
    options = sampling_options(device_kind, num_rows)
    return jax.jit(decode, static_argnames=static, donate_argnames=donated, compiler_options=options)


def _draft_tokens(state: DecodeState, num_draft_tokens: int) -> jax.Array:
    """Return the tokens [B, num_draft_tokens] that followed the last two tokens when they last occurred, or zeros."""
    if not num_draft_tokens:
        return jnp.zeros((len(state.tokens), 0), jnp.int32)
    history, current = state.history, state.positions[:, None]
    indices = jnp.arange(1, history.shape[1])
    previous = jnp.take_along_axis(history, jnp.maximum(current - 1, 0), axis=1)
    is_match = (history[:, 1:] == state.tokens[:, None]) & (history[:, :-1] == previous) & (indices < current)
    last = jnp.where(is_match, indices, 0).max(-1, keepdims=True)
    following = last + 1 + jnp.arange(num_draft_tokens)
    draft = jnp.take_along_axis(history, jnp.minimum(following, history.shape[1] - 1), axis=1)
    return jnp.where((last > 0) & (following <= current), draft, 0)


def _accept_tokens(
    model: Transformer, hidden: jax.Array, draft: jax.Array, state: DecodeState, eos_ids: jax.Array, steps: SamplingSteps
) -> tuple[StepOutput, DecodeState]:
    """Select the tokens [1 + num_draft_tokens, B] of one step. A row stops at its first wrong draft token."""
    outputs, is_continued = [], state.active
    for i in range(1 + draft.shape[1]):
        positions = state.positions + 1
        selected = _select(model, model.logits(hidden[:, i]), state, positions, steps)
        outputs.append(selected._replace(tokens=jnp.where(is_continued, selected.tokens, -1)))
        state = _append_token(state, selected.tokens, positions, is_continued, steps)
        is_ended = (selected.tokens[:, None] == eos_ids).any(-1) | (positions >= state.limits - 1)
        state = state._replace(active=state.active & ~(is_continued & is_ended))
        if i < draft.shape[1]:
            is_continued &= ~is_ended & (draft[:, i] == selected.tokens)
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *outputs), state


def _append_token(
    state: DecodeState, tokens: jax.Array, positions: jax.Array, is_continued: jax.Array, steps: SamplingSteps
) -> DecodeState:
    """Return the state with `tokens` as the last tokens, at `positions`, in the rows where `is_continued` is True."""
    rows, seen, history = jnp.arange(len(tokens)), state.seen, state.history
    if steps.repetition_penalty:
        seen = seen.at[rows, tokens].max(is_continued)
    if history.shape[1]:
        history = history.at[rows, jnp.where(is_continued, positions, history.shape[1])].set(tokens, mode="drop")
    put = lambda new, old: jnp.where(is_continued, new, old)  # noqa: E731
    return state._replace(
        tokens=put(tokens, state.tokens), positions=put(positions, state.positions), seen=seen, history=history
    )


def uniform(keys: jax.Array, positions: jax.Array, attempt: jax.Array) -> jax.Array:
    """Return a random number in [0, 1) for each row, determined by its key, the position of the new token, and the attempt."""

    def draw(key: jax.Array, position: jax.Array) -> jax.Array:
        folded = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(key), position), attempt)
        return jax.random.uniform(folded)

    return jax.vmap(draw)(keys, positions)


def _select(
    model: Transformer, logits: jax.Array, state: DecodeState, positions: jax.Array, steps: SamplingSteps
) -> StepOutput:
    """Select one token per row, with log-probabilities if any row needs them."""
    # Each device selects the tokens of its own rows.
    logits = model.rules.constrain(model.rules.constrain(logits, "batch", "logits"), "cache_batch", None)
    draw = functools.partial(uniform, state.keys, positions)
    tokens = select_tokens(logits, state.seen, draw, state.params, steps)
    if steps.num_logprobs is None:
        return StepOutput(tokens, None, None)
    logprobs = jax.nn.log_softmax(logits)
    token_logprobs = jnp.take_along_axis(logprobs, tokens[:, None], axis=1)[:, 0]
    if not steps.num_logprobs:
        return StepOutput(tokens, token_logprobs, None)
    values, ids = jax.lax.top_k(logprobs, steps.num_logprobs)
    return StepOutput(tokens, token_logprobs, (values, ids))


def _empty_output(shape: tuple[int, ...], steps: SamplingSteps) -> StepOutput:
    n = steps.num_logprobs
    tokens = jnp.full(shape, -1, jnp.int32)
    if n is None:
        return StepOutput(tokens, None, None)
    logprobs = jnp.zeros(shape, jnp.float32)
    top = (jnp.zeros((*shape, n), jnp.float32), jnp.zeros((*shape, n), jnp.int32)) if n else None
    return StepOutput(tokens, logprobs, top)
