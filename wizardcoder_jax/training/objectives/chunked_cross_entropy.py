"""Cross-entropy of the supervised tokens, computed in chunks so that the logits of all tokens are never in memory at once."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wizardcoder_jax.core.sharding import ShardingRules, is_cpu_target

# Number of positions per chunk: CPU_CHUNK of each sequence on CPU; CHUNK_TOKENS over all sequences of a device on accelerators.
# On CPU, small chunks save time because more of the padding is skipped. On TPU, chunks must be large: each chunk reads and
# writes the float32 gradient of the embedding table, which would take longer than the matmuls of a small chunk.
CPU_CHUNK, CHUNK_TOKENS = 128, 1024


class _SplitAxes(NamedTuple):
    """Mesh axes over which the computation is split."""

    batch: tuple[str, ...]  # axes that split the sequences
    vocab: tuple[str, ...]  # axes that split the vocabulary
    table_sum: tuple[str, ...]  # axes that split the embedding table's gradient after it has been summed over devices


class CrossEntropyOptions(NamedTuple):
    """Settings of the loss of a target token."""

    vocab_size: int  # number of tokens; further rows of the embedding table are padding
    z_loss: float = 0.0
    label_smoothing: float = 0.0


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def chunked_cross_entropy(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    options: CrossEntropyOptions,
    rules: ShardingRules,
    chunk: int | None = None,
) -> jax.Array:
    """Return the sum of weight * loss over all positions: cross-entropy (smoothed if set) plus z_loss * (log Z)^2.

    Positions of weight 0 take almost no time: in each sequence, all other positions are moved to the front, and computation
    stops after the last chunk that contains one in any sequence. The gradients are computed in the same pass, chunk by chunk,
    so no logits are stored or recomputed.

    Args:
        hidden: [B, T, D] final hidden states.
        table: [V, D] output embedding, padded.
        targets: [B, T] token ids.
        weights: [B, T] float32.
        options: the settings of the loss.
        rules: the sharding rules of activations.
        chunk: number of positions of each sequence per chunk, or None for the default; see `chunk_length`.

    Returns:
        A float32 scalar.
    """
    return _forward(hidden, table, targets, weights, options, rules, chunk)[0]


def _forward(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    options: CrossEntropyOptions,
    rules: ShardingRules,
    chunk: int | None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Return the loss and its gradients with respect to `hidden` and `table`, which are computed together."""
    batch, token_ids = ("batch", None), jnp.arange(table.shape[0])
    over_batch, over_vocab = rules.mesh_axes("batch", len(hidden)), rules.mesh_axes("logits", len(token_ids))
    scattered = tuple(name for name in rules.mesh_axes("vocab", len(token_ids)) if name not in over_vocab)
    split = _SplitAxes(over_batch, over_vocab, scattered if set(scattered) <= set(over_batch) else ())
    in_axes = (("batch", None, None), ("logits", None), ("logits",), batch, batch)
    table_axes = ("vocab" if split.table_sum else "logits", None)
    out = ((targets.shape[:1], ("batch",)), (hidden.shape, ("batch", None, None)), (table.shape, table_axes))
    device_loss = rules.shard_map(
        functools.partial(_device_loss_and_grads, options=options, split=split, chunk=chunk), in_axes, out
    )
    kernel = rules.all_gather(table.astype(hidden.dtype), "vocab", None)
    loss, hidden_grad, table_grad = device_loss(hidden, kernel, token_ids, targets, weights)
    return loss.sum(), (hidden_grad, rules.constrain(table_grad.astype(table.dtype), "vocab", None))


def chunk_length(num_rows: int, length: int, chunk: int | None) -> int:
    """Return the number of positions of each sequence per chunk.

    Args:
        num_rows: number of sequences on the device.
        length: number of positions of each sequence.
        chunk: a fixed number of positions; None chooses about CHUNK_TOKENS positions over all sequences.
    """
    return min(chunk or max(CHUNK_TOKENS // num_rows, CPU_CHUNK), length)


def _device_loss_and_grads(
    hidden: jax.Array,
    kernel: jax.Array,
    token_ids: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    *,
    options: CrossEntropyOptions,
    split: _SplitAxes,
    chunk: int | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the loss of this device's sequences [B], the gradient of their hidden states, and that of its rows of the table.

    Gradients are summed over devices once, at the end; within a chunk, devices exchange only the terms of the softmax. Each
    device receives only its own slice of the table's gradient, as the whole gradient would stay in memory during backward.
    """
    length = hidden.shape[1]
    chunk = chunk_length(len(hidden), length, chunk or (CPU_CHUNK if is_cpu_target() else None))
    order = jnp.argsort(weights == 0, axis=1, stable=True)

    def to_front(array: jax.Array) -> jax.Array:
        """Reorder each sequence: supervised positions, then unsupervised ones, then padding to a multiple of the chunk."""
        indices = order.reshape(order.shape + (1,) * (array.ndim - 2))
        padding = ((0, 0), (0, -length % chunk), (0, 0))[: array.ndim]
        return jnp.pad(jnp.take_along_axis(array, indices, axis=1), padding)

    front, targets, weights = to_front(hidden), to_front(targets), to_front(weights)
    num_chunks = _across(jax.lax.pmax, (jnp.count_nonzero(weights, axis=1).max() + chunk - 1) // chunk, split.batch)

    def step(i: jax.Array, sums: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        loss, hidden_grad, table_grad = sums
        chunk_of = lambda array: jax.lax.dynamic_slice_in_dim(array, i * chunk, chunk, axis=1)  # noqa: E731
        states, target, weight = chunk_of(front), chunk_of(targets)[..., None], chunk_of(weights)[..., None]
        logits = jnp.einsum("BCD,VD->BCV", states, kernel, preferred_element_type=jnp.float32)
        logits = jnp.where(token_ids < options.vocab_size, logits, -jnp.inf)
        chunk_loss, grad = _loss_and_logits_grad(logits, token_ids, target, options, split.vocab)
        grad = (weight * grad).astype(hidden.dtype)
        states_grad = jnp.einsum("BCV,VD->BCD", grad, kernel)
        return (
            loss + jnp.sum(weight * chunk_loss, axis=(1, 2)),
            jax.lax.dynamic_update_slice_in_dim(hidden_grad, states_grad, i * chunk, axis=1),
            table_grad + jnp.einsum("BCV,BCD->VD", grad, states, preferred_element_type=jnp.float32),
        )

    varying = functools.partial(jax.lax.pcast, to="varying")  # tells shard_map that sums differ between devices
    loss = _across(varying, jnp.zeros(len(hidden)), split.batch)
    hidden_grad = _across(varying, jnp.zeros(front.shape, front.dtype), split.batch + split.vocab)
    table_grad = _across(varying, jnp.zeros(kernel.shape), split.batch + split.vocab)
    loss, hidden_grad, table_grad = jax.lax.fori_loop(0, num_chunks, step, (loss, hidden_grad, table_grad))
    inverse = jnp.argsort(order, axis=1)[..., None]
    hidden_grad = jnp.take_along_axis(_across(jax.lax.psum, hidden_grad, split.vocab)[:, :length], inverse, axis=1)
    table_grad = _across(jax.lax.psum, table_grad, tuple(name for name in split.batch if name not in split.table_sum))
    scatter = functools.partial(jax.lax.psum_scatter, scatter_dimension=0, tiled=True)
    return loss, hidden_grad, _across(scatter, table_grad, split.table_sum)


def _loss_and_logits_grad(
    logits: jax.Array, token_ids: jax.Array, target: jax.Array, options: CrossEntropyOptions, over_vocab: tuple[str, ...]
) -> tuple[jax.Array, jax.Array]:
    """Return the loss of targets [B, C, 1] and its gradient with respect to the logits [B, C, V] of the tokens `token_ids` [V].

    If the vocabulary is split over devices, the maximum, the sum of exponentials and the target's logit are computed over all
    devices with collectives.
    """
    largest = _across(jax.lax.pmax, logits.max(-1, keepdims=True), over_vocab)
    index = target - token_ids[0]
    target_logit = jnp.take_along_axis(logits, jnp.clip(index, 0, len(token_ids) - 1), axis=-1)
    target_logit = jnp.where((index >= 0) & (index < len(token_ids)), target_logit, 0)
    total, target_logit = _across(jax.lax.psum, (jnp.exp(logits - largest).sum(-1, keepdims=True), target_logit), over_vocab)
    log_z = largest + jnp.log(total)
    loss, grad = log_z - target_logit, jnp.exp(logits - log_z)
    if options.z_loss:
        loss = loss + options.z_loss * jnp.square(log_z)
        grad = grad * (1 + 2 * options.z_loss * log_z)
    if not options.label_smoothing:
        return loss, grad - (token_ids == target)
    # As in torch's cross_entropy: with smoothing e, the target gets the weight 1 - e, and e is spread evenly over all tokens.
    is_token, share = token_ids < options.vocab_size, options.label_smoothing / options.vocab_size
    logits_sum = _across(jax.lax.psum, jnp.where(is_token, logits, 0).sum(-1, keepdims=True), over_vocab)
    loss = loss + options.label_smoothing * target_logit - share * logits_sum
    return loss, grad - (1 - options.label_smoothing) * (token_ids == target) - share * is_token


def _across(collective: Callable[..., Any], arrays: Any, names: tuple[str, ...]) -> Any:
    """Apply `collective` over the mesh axes `names`; return `arrays` unchanged if there are no axes."""
    return collective(arrays, names) if names else arrays


def _backward(
    options: CrossEntropyOptions,
    rules: ShardingRules,
    chunk: int | None,
    grads: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array, None, None]:
    hidden_grad, table_grad = grads
    return hidden_grad * cotangent.astype(hidden_grad.dtype), table_grad * cotangent, None, None


chunked_cross_entropy.defvjp(_forward, _backward)
