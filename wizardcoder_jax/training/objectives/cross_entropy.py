"""The training objective: cross-entropy of the supervised tokens, without the logits of all tokens."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wizardcoder_jax.config import Remat, TrainConfig
from wizardcoder_jax.core.sharding import ShardingRules, is_cpu_target
from wizardcoder_jax.models.attention_dispatch import AttentionBackend
from wizardcoder_jax.models.dropout import ActivationNoise
from wizardcoder_jax.models.transformer import Transformer

# Logits exist for so many places at a time: of each row, or of all rows of a device. Every chunk reads and writes the table's
# gradient in float32, for which a TPU takes longer than for the products where chunks are small; on CPU, where products are
# slow, small ones spare more of the padding.
CPU_CHUNK, CHUNK_TOKENS = 128, 1024


class _Split(NamedTuple):
    """Mesh axes over which devices have different things."""

    batch: tuple[str, ...]  # sequences
    vocab: tuple[str, ...]  # tokens of the vocabulary
    table_sum: tuple[str, ...]  # parts of the table's gradient, once it is summed


class CrossEntropyOptions(NamedTuple):
    """What a token costs."""

    vocab_size: int  # rows of the table that are tokens
    z_loss: float = 0.0
    label_smoothing: float = 0.0


class Batch(NamedTuple):
    """Packed rows, [B, T] each (or [A, B, T]: A microbatches)."""

    tokens: jax.Array  # int32 inputs
    targets: jax.Array  # int32, the token after each
    weights: jax.Array  # of each target in the loss, float32: the loss of a step is a plain weighted sum over all its rows
    segment_ids: jax.Array  # int32, which example of its row; 0 is padding
    positions: jax.Array  # int32, place in its own example
    seeds: jax.Array  # uint32, [B]: all randomness of a row (dropout, noise)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """How the loss is computed and what is added to it; what is 0 costs nothing."""

    dtype: jnp.dtype  # of activations and matmuls
    remat: Remat = "none"  # see models/remat.py
    attention: AttentionBackend = "auto"  # see Transformer
    chunk: int | None = None  # see chunk_length
    dropout: float = 0.0  # see models/dropout.py
    neftune_alpha: float = 0.0  # see models/dropout.py
    z_loss: float = 0.0  # times (log Z)^2 of every supervised token (PaLM, arXiv 2204.02311, section 5)
    label_smoothing: float = 0.0  # share of each target that is spread evenly over the vocabulary (arXiv 1512.00567)

    @classmethod
    def of(cls, config: TrainConfig) -> "LossOptions":
        """Those of training."""
        dtype, added = jnp.dtype(config.compute_dtype), dataclasses.asdict(config.regularisation)
        return cls(dtype=dtype, remat=config.remat, attention=config.attention, chunk=config.loss_chunk, **added)

    def plain(self) -> "LossOptions":
        """The same with nothing added: the cross-entropy itself, as validation reports it."""
        return LossOptions(dtype=self.dtype, attention=self.attention, chunk=self.chunk)


def weighted_loss(model: Transformer, batch: Batch, options: LossOptions) -> jax.Array:
    """The sum over targets of weight * what each costs, a float32 scalar: its cross-entropy, and what the options add to it.

    Args:
        model: the weights.
        batch: rows [B, T].
        options: of the forward pass and of the objective.

    Raises:
        InputError: an attention kernel is asked for where it does not fit.
    """
    noise = ActivationNoise(seeds=batch.seeds, dropout=options.dropout, neftune_alpha=options.neftune_alpha)
    hidden = model(
        batch.tokens,
        batch.positions,
        batch.segment_ids,
        dtype=options.dtype,
        remat=options.remat,
        attention=options.attention,
        noise=noise if options.dropout or options.neftune_alpha else None,
    )
    objective = CrossEntropyOptions(model.arch.vocab_size, options.z_loss, options.label_smoothing)
    weights = batch.weights.astype(jnp.float32)
    return cross_entropy(hidden, model.head_table, batch.targets, weights, objective, model.rules, options.chunk)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def cross_entropy(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    objective: CrossEntropyOptions,
    rules: ShardingRules,
    chunk: int | None = None,
) -> jax.Array:
    """The sum of weight * cost over all places: the cross-entropy, smoothed where asked, and z_loss * (log Z)^2.

    Places of weight 0 cost nothing: each row's others are brought to its front, and only as many chunks are computed as
    the fullest row needs. The gradient is found in the same pass, chunk by chunk, so no logits are kept or made twice.

    Args:
        hidden: [B, T, D] final hidden states.
        table: [V, D] output embedding, padded.
        targets: [B, T] token ids.
        weights: [B, T] float32.
        objective: what a token costs.
        rules: how activations are split over the mesh.
        chunk: places of a row whose logits exist at a time; see chunk_length.

    Returns:
        A float32 scalar.
    """
    return _forward(hidden, table, targets, weights, objective, rules, chunk)[0]


def _forward(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    objective: CrossEntropyOptions,
    rules: ShardingRules,
    chunk: int | None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The loss and its gradients; each device has its own rows, and all or its part of the vocabulary."""
    batch, rows = ("batch", None), jnp.arange(table.shape[0])
    over_batch, over_vocab = rules.mesh_axes("batch", len(hidden)), rules.mesh_axes("logits", len(rows))
    scattered = tuple(name for name in rules.mesh_axes("vocab", len(rows)) if name not in over_vocab)
    split = _Split(over_batch, over_vocab, scattered if set(scattered) <= set(over_batch) else ())
    in_axes = (("batch", None, None), ("logits", None), ("logits",), batch, batch)
    held = ("vocab" if split.table_sum else "logits", None)
    out = ((targets.shape[:1], ("batch",)), (hidden.shape, ("batch", None, None)), (table.shape, held))
    part = rules.shard_map(functools.partial(_part, objective=objective, split=split, chunk=chunk), in_axes, out)
    kernel = rules.all_gather(table.astype(hidden.dtype), "vocab", None)
    loss, hidden_grad, table_grad = part(hidden, kernel, rows, targets, weights)
    return loss.sum(), (hidden_grad, rules.constrain(table_grad.astype(table.dtype), "vocab", None))


def chunk_length(num_rows: int, length: int, chunk: int | None) -> int:
    """Places of each row whose logits exist at a time on an accelerator that has so many rows, each of `length` places.

    A chunk that is given holds; the longer it is, the more seldom is the table's gradient read and written.
    """
    return min(chunk or max(CHUNK_TOKENS // num_rows, CPU_CHUNK), length)


def _part(
    hidden: jax.Array,
    kernel: jax.Array,
    rows: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    *,
    objective: CrossEntropyOptions,
    split: _Split,
    chunk: int | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What one device does: the loss of its sequences [B], the gradients of their states and of its `rows` of the table.

    The gradients are summed over the devices once, at the end; in each chunk only what a softmax needs is. Of the
    table's each device is given the part that it holds: the whole would be in memory through the backward pass.
    """
    length = hidden.shape[1]
    chunk = chunk_length(len(hidden), length, chunk or (CPU_CHUNK if is_cpu_target() else None))
    order = jnp.argsort(weights == 0, axis=1, stable=True)

    def to_front(array: jax.Array) -> jax.Array:
        """Each row's supervised places first, then the rest, then padding to whole chunks."""
        places = order.reshape(order.shape + (1,) * (array.ndim - 2))
        spare = ((0, 0), (0, -length % chunk), (0, 0))[: array.ndim]
        return jnp.pad(jnp.take_along_axis(array, places, axis=1), spare)

    front, targets, weights = to_front(hidden), to_front(targets), to_front(weights)
    num_chunks = _across(jax.lax.pmax, (jnp.count_nonzero(weights, axis=1).max() + chunk - 1) // chunk, split.batch)

    def step(i: jax.Array, sums: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        loss, hidden_grad, table_grad = sums
        cut = lambda array: jax.lax.dynamic_slice_in_dim(array, i * chunk, chunk, axis=1)  # noqa: E731
        part, target, weight = cut(front), cut(targets)[..., None], cut(weights)[..., None]
        logits = jnp.einsum("BCD,VD->BCV", part, kernel, preferred_element_type=jnp.float32)
        logits = jnp.where(rows < objective.vocab_size, logits, -jnp.inf)
        loss_here, grad = _of_logits(logits, rows, target, objective, split.vocab)
        grad = (weight * grad).astype(hidden.dtype)
        part_grad = jnp.einsum("BCV,VD->BCD", grad, kernel)
        return (
            loss + jnp.sum(weight * loss_here, axis=(1, 2)),
            jax.lax.dynamic_update_slice_in_dim(hidden_grad, part_grad, i * chunk, axis=1),
            table_grad + jnp.einsum("BCV,BCD->VD", grad, part, preferred_element_type=jnp.float32),
        )

    own = functools.partial(jax.lax.pcast, to="varying")  # in every device's own hands
    loss = _across(own, jnp.zeros(len(hidden)), split.batch)
    hidden_grad = _across(own, jnp.zeros(front.shape, front.dtype), split.batch + split.vocab)
    table_grad = _across(own, jnp.zeros(kernel.shape), split.batch + split.vocab)
    loss, hidden_grad, table_grad = jax.lax.fori_loop(0, num_chunks, step, (loss, hidden_grad, table_grad))
    back = jnp.argsort(order, axis=1)[..., None]
    hidden_grad = jnp.take_along_axis(_across(jax.lax.psum, hidden_grad, split.vocab)[:, :length], back, axis=1)
    table_grad = _across(jax.lax.psum, table_grad, tuple(name for name in split.batch if name not in split.table_sum))
    scatter = functools.partial(jax.lax.psum_scatter, scatter_dimension=0, tiled=True)
    return loss, hidden_grad, _across(scatter, table_grad, split.table_sum)


def _of_logits(
    logits: jax.Array, rows: jax.Array, target: jax.Array, objective: CrossEntropyOptions, over_vocab: tuple[str, ...]
) -> tuple[jax.Array, jax.Array]:
    """Cost of targets [B, C, 1] and its gradient by the logits [B, C, V] of the tokens `rows` [V].

    Other devices may hold the other tokens: the largest logit, the sum of exponentials and the target's logit are theirs too.
    """
    top = _across(jax.lax.pmax, logits.max(-1, keepdims=True), over_vocab)
    here = target - rows[0]
    chosen = jnp.take_along_axis(logits, jnp.clip(here, 0, len(rows) - 1), axis=-1)
    chosen = jnp.where((here >= 0) & (here < len(rows)), chosen, 0)
    total, chosen = _across(jax.lax.psum, (jnp.exp(logits - top).sum(-1, keepdims=True), chosen), over_vocab)
    normaliser = top + jnp.log(total)
    cost, grad = normaliser - chosen, jnp.exp(logits - normaliser)
    if objective.z_loss:
        cost = cost + objective.z_loss * jnp.square(normaliser)
        grad = grad * (1 + 2 * objective.z_loss * normaliser)
    if not objective.label_smoothing:
        return cost, grad - (rows == target)
    # as torch's cross_entropy: the target has 1 - e of the weight, all tokens share e evenly
    is_token, share = rows < objective.vocab_size, objective.label_smoothing / objective.vocab_size
    spread = _across(jax.lax.psum, jnp.where(is_token, logits, 0).sum(-1, keepdims=True), over_vocab)
    cost = cost + objective.label_smoothing * chosen - share * spread
    return cost, grad - (1 - objective.label_smoothing) * (rows == target) - share * is_token


def _across(collective: Callable[..., Any], arrays: Any, names: tuple[str, ...]) -> Any:
    """`collective` over the devices along mesh axes; where there are none `arrays` as they are."""
    return collective(arrays, names) if names else arrays


def _backward(
    objective: CrossEntropyOptions,
    rules: ShardingRules,
    chunk: int | None,
    grads: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array, None, None]:
    hidden_grad, table_grad = grads
    return hidden_grad * cotangent.astype(hidden_grad.dtype), table_grad * cotangent, None, None


cross_entropy.defvjp(_forward, _backward)
