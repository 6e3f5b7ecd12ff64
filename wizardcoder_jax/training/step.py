"""The training state and the jitted step that advances it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.model.transformer import Transformer
from wizardcoder_jax.sharding import Rules
from wizardcoder_jax.training.loss import Batch, LossOptions, weighted_loss


class State(NamedTuple):
    """All that a step changes."""

    step: jax.Array  # int32, steps done
    model: Transformer  # float32 master weights
    opt_state: Any  # optax


class StepMetrics(NamedTuple):
    """Float32 scalars of one step."""

    loss: jax.Array  # weighted sum over all targets: a mean, as the weights add up to 1
    grad_norm: jax.Array  # global, before clipping


TrainStep = Callable[[State, Batch], tuple[State, StepMetrics]]


def shardings(tree: Any, mesh: Mesh, rules: Rules) -> Any:
    """How every array of `tree` lies on the mesh: parameters (and their moments) by their axes, the rest replicated."""

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Param):
            return NamedSharding(mesh, PartitionSpec())
        return jax.tree.map(lambda array: rules.sharding(mesh, array.shape, leaf.axes), leaf)

    return jax.tree.map(place, tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))


def new_state(model: Transformer, optimizer: optax.GradientTransformation, mesh: Mesh, rules: Rules) -> State:
    """The state before the first step, moments beside their parameters."""
    init = lambda model: State(jnp.int32(0), model, optimizer.init(model))  # noqa: E731
    return jax.jit(init, out_shardings=shardings(jax.eval_shape(init, model), mesh, rules), donate_argnums=0)(model)


def abstract_state(model: Transformer, optimizer: optax.GradientTransformation, mesh: Mesh, rules: Rules) -> State:
    """The state's shapes and shardings, for restoring a checkpoint into; `model` holds shapes."""
    state = jax.eval_shape(lambda model: State(jnp.int32(0), model, optimizer.init(model)), model)
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(place, state, shardings(state, mesh, rules))


def put_batch(rows: dict[str, np.ndarray], accumulation: int, mesh: Mesh, rules: Rules) -> Batch:
    """Host rows [B, ...] as device arrays [A, B/A, ...], each microbatch spread over all devices that split sequences."""
    sharding = NamedSharding(mesh, PartitionSpec(None, rules.batch))

    def put(array: np.ndarray) -> jax.Array:
        stacked = array.reshape(accumulation, -1, *array.shape[1:])
        return jax.make_array_from_callback(stacked.shape, sharding, lambda index: stacked[index])

    return Batch(**{name: put(rows[name]) for name in Batch._fields})


def make_step(config: TrainConfig, optimizer: optax.GradientTransformation, unroll: bool) -> TrainStep:
    """The jitted step: the gradient of the weighted sum over all microbatches, then one update.

    Args:
        config: compute dtype, remat, attention, regularisation.
        optimizer: turns gradients into updates.
        unroll: take the blocks apart and unroll the loop over them (CPU), instead of scanning them.
    """
    options = LossOptions.of(config)

    def loss(model: Transformer, microbatch: Batch) -> jax.Array:
        return weighted_loss(model.unstacked() if unroll else model, microbatch, options)

    def step(state: State, batch: Batch) -> tuple[State, StepMetrics]:
        total, grads = _accumulated(jax.value_and_grad(loss), state.model, batch)
        params: Any = state.model  # optax takes any pytree, but its types do not say so
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        model: Any = optax.apply_updates(params, updates)
        metrics = StepMetrics(total, optax.tree.norm(grads))
        return State(state.step + 1, model, opt_state), metrics

    return jax.jit(step, donate_argnums=0)


def _accumulated(value_and_grad: Callable[..., Any], model: Transformer, batch: Batch) -> tuple[jax.Array, Transformer]:
    """Loss and gradients summed over the microbatches [A, B, T]."""
    if batch.tokens.shape[0] == 1:
        return value_and_grad(model, jax.tree.map(lambda array: array[0], batch))

    def add(sums: Any, microbatch: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, value_and_grad(model, microbatch)), None

    zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, model))
    return jax.lax.scan(add, zeros, batch)[0]
