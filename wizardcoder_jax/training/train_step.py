"""The training state and the jitted step that advances it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.sharding import ShardingRules, target_device_kind
from wizardcoder_jax.core.xla_flags import training_options
from wizardcoder_jax.models.param_shardings import param_shardings
from wizardcoder_jax.models.transformer import Transformer
from wizardcoder_jax.training.objectives.objective import LossOptions, Objective
from wizardcoder_jax.training.objectives.objective_registry import OBJECTIVES
from wizardcoder_jax.training.optimizers.factory import make_optimizer, make_schedule, step_count
from wizardcoder_jax.training.skip_step import SkipStepState, check_step, init_skip_step
from wizardcoder_jax.training.trainable import Params, Partition


class TrainState(NamedTuple):
    """The weights, the optimizer state, and everything else that a training step reads or updates."""

    trained: Params  # float32 master weights
    frozen: Params  # frozen weights, of any dtype
    opt_state: Any  # state of the optax optimizer
    ema: Params | None  # exponential moving average of `trained`, if the run keeps one
    skip_step: SkipStepState


class StepMetrics(NamedTuple):
    """Metrics of one step, all scalars."""

    loss: jax.Array  # the objective's loss, summed over microbatches
    grad_norm: jax.Array  # global norm of the gradient of the trained weights, before clipping
    lr: jax.Array  # learning rate
    num_skipped: jax.Array  # int32, number of steps skipped so far
    skipped_in_row: jax.Array  # int32, number of consecutive skipped steps up to and including this one
    objective: dict[str, jax.Array]  # the objective's own metrics, by name


TrainStep = Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]


def _init(model: Transformer, config: TrainConfig) -> TrainState:
    trained, frozen = Partition.of(model, config).split(model)
    params: Any = trained  # optax accepts any pytree, but its type annotations do not
    opt_state = make_optimizer(config.optim, config.num_steps).init(params)
    # A copy, because both the weights and their average are donated to the step, so they must not share buffers.
    ema = None if config.optim.ema_decay is None else jax.tree.map(jnp.copy, trained)
    return TrainState(trained, frozen, opt_state, ema, init_skip_step())


def new_state(model: Transformer, config: TrainConfig, mesh: Mesh, rules: ShardingRules) -> TrainState:
    """Return the state before the first step; moments are sharded like their parameters. `model` is donated."""
    shardings = param_shardings(jax.eval_shape(lambda model: _init(model, config), model), mesh, rules)
    return jax.jit(lambda model: _init(model, config), out_shardings=shardings, donate_argnums=0)(model)


def abstract_state(model: Transformer, config: TrainConfig, mesh: Mesh, rules: ShardingRules) -> TrainState:
    """Return the shapes and shardings of the training state, used to restore a checkpoint or to compile the step.

    Args:
        model: the model, of which only shapes are used.
        config: the settings of the optimizer, adapters and frozen weights.
        mesh: the devices.
        rules: the sharding rules.
    """
    state = jax.eval_shape(lambda model: _init(model, config), model)
    with_sharding = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(with_sharding, state, param_shardings(state, mesh, rules))


def make_step(config: TrainConfig, partition: Partition, unroll: bool) -> TrainStep:
    """Return the jitted training step.

    A step sums the gradient over all microbatches and then makes one update, unless the step must be skipped. It is compiled
    with the compiler options for the devices of the current mesh.

    Args:
        config: the settings of the run.
        partition: the trained and the frozen weights.
        unroll: whether to unroll the loop over the blocks and update all weights at once. This is faster on CPU, but needs
            more memory than a scan with a layerwise update.
    """
    objective, options = OBJECTIVES[config.objective], LossOptions.from_config(config)
    schedule = make_schedule(config.optim, config.num_steps)
    optimizer = make_optimizer(config.optim, config.num_steps, layerwise=not unroll)

    def loss(trained: Params, frozen: Params, microbatch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        model = partition.join(trained, frozen)
        return objective.loss(model.unstack_layers() if unroll else model, microbatch, options)

    value_and_grad = jax.value_and_grad(loss, has_aux=True)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        (total, objective_metrics), grads = _accumulate(objective, value_and_grad, state.trained, state.frozen, batch)
        grads = partition.zero_frozen_layers(grads)
        norm = optax.tree.norm(grads)
        is_taken, skip_step = check_step(state.skip_step, config.guard, total, norm)
        update = functools.partial(_update, optimizer, partition, config.optim.ema_decay)
        old = (state.trained, state.opt_state, state.ema)
        if unroll:
            select = lambda new, old: jnp.where(is_taken, new, old)  # noqa: E731
            trained, opt_state, ema = jax.tree.map(select, update(grads, *old), old)
        else:  # jax.lax.cond can update the old arrays in place; jnp.where would need a second copy
            trained, opt_state, ema = jax.lax.cond(is_taken, update, lambda _, *old: old, grads, *old)
        lr = jnp.asarray(schedule(step_count(state.opt_state)), jnp.float32)
        metrics = StepMetrics(total, norm, lr, skip_step.num_skipped, skip_step.skipped_in_row, objective_metrics)
        return _keep_shardings(TrainState(trained, state.frozen, opt_state, ema, skip_step), partition.rules), metrics

    return jax.jit(step, donate_argnums=0, compiler_options=training_options(target_device_kind()))


def _keep_shardings(state: TrainState, rules: ShardingRules) -> TrainState:
    """Constrain each array to the sharding that it has as an input, because the output of a step is the input of the next."""
    is_param = lambda node: isinstance(node, nnx.Param)  # noqa: E731

    def constrain(leaf: Any) -> Any:
        if is_param(leaf):
            return jax.tree.map(lambda array: rules.constrain(array, *leaf.axes), leaf)
        return rules.constrain(leaf)

    return jax.tree.map(constrain, state, is_leaf=is_param)


def _update(
    optimizer: optax.GradientTransformation,
    partition: Partition,
    ema_decay: float | None,
    grads: Any,
    trained: Any,
    opt_state: Any,
    ema: Any,
) -> tuple[Params, Any, Params | None]:
    """Return the trained weights, the optimizer state and the moving average after one update."""
    updates, opt_state = optimizer.update(grads, opt_state, trained)
    trained = optax.apply_updates(trained, partition.zero_frozen_layers(updates))  # pyright: ignore[reportArgumentType]
    if ema_decay is not None:
        ema = jax.tree.map(lambda mean, new: ema_decay * mean + (1 - ema_decay) * new, ema, trained)
    return trained, opt_state, ema  # pyright: ignore[reportReturnType]


def _accumulate(
    objective: Objective, value_and_grad: Callable[..., Any], trained: Params, frozen: Params, batch: Any
) -> tuple[tuple[jax.Array, dict[str, jax.Array]], Params]:
    """Return ((loss, metrics), gradients), each summed over the A microbatches of `batch`, whose arrays are [A, B, ...]."""
    num_microbatches = jax.tree.leaves(batch)[0].shape[0]
    if num_microbatches == 1:
        return value_and_grad(trained, frozen, jax.tree.map(lambda array: array[0], batch))

    def add(sums: Any, microbatch: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, value_and_grad(trained, frozen, microbatch)), None

    zero_metrics = {name: jnp.float32(0) for name in objective.metric_names}
    zeros = ((jnp.float32(0), zero_metrics), jax.tree.map(jnp.zeros_like, trained))
    return jax.lax.scan(add, zeros, batch)[0]
