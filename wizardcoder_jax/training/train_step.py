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
from wizardcoder_jax.training.objectives.cross_entropy import Batch, LossOptions, weighted_loss
from wizardcoder_jax.training.optimizers.factory import make_optimizer, make_schedule, step_count
from wizardcoder_jax.training.skip_step import SkipStepState, check_step, init_skip_step
from wizardcoder_jax.training.trainable import Params, Partition


class TrainState(NamedTuple):
    """All that a step changes, and the weights that it does not."""

    trained: Params  # float32 master weights
    frozen: Params  # of any dtype
    opt_state: Any  # optax
    ema: Params | None  # moving average of `trained`
    guard: SkipStepState


class StepMetrics(NamedTuple):
    """Scalars of one step."""

    loss: jax.Array  # weighted sum over all targets: a mean, as the weights add up to 1
    grad_norm: jax.Array  # global, before clipping, of what is trained
    lr: jax.Array  # learning rate
    num_skipped: jax.Array  # int32, steps skipped so far
    skipped_in_row: jax.Array  # int32, the latest of them, this one included


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]


def _init(model: Transformer, config: TrainConfig) -> TrainState:
    trained, frozen = Partition.of(model, config).split(model)
    params: Any = trained  # optax takes any pytree, but its types do not say so
    opt_state = make_optimizer(config.optim, config.num_steps).init(params)
    # A copy: the average and the weights are donated apart.
    ema = None if config.optim.ema_decay is None else jax.tree.map(jnp.copy, trained)
    return TrainState(trained, frozen, opt_state, ema, init_skip_step())


def new_state(model: Transformer, config: TrainConfig, mesh: Mesh, rules: ShardingRules) -> TrainState:
    """The state before the first step, moments beside their parameters; `model` is donated."""
    places = param_shardings(jax.eval_shape(lambda model: _init(model, config), model), mesh, rules)
    return jax.jit(lambda model: _init(model, config), out_shardings=places, donate_argnums=0)(model)


def abstract_state(model: Transformer, config: TrainConfig, mesh: Mesh, rules: ShardingRules) -> TrainState:
    """The state's shapes and shardings, to restore a checkpoint into or to compile for; `model` holds shapes."""
    state = jax.eval_shape(lambda model: _init(model, config), model)
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(place, state, param_shardings(state, mesh, rules))


def make_step(config: TrainConfig, partition: Partition, unroll: bool) -> TrainStep:
    """The jitted step: the gradient of the weighted sum over all microbatches, then one update, unless the guard objects.

    It is compiled with the options of the current mesh's devices.

    Args:
        config: optimizer, guard, compute dtype, remat, attention, regularisation.
        partition: which weights are trained.
        unroll: take the blocks apart and unroll the loop over them, and update all weights at once: faster on CPU, and
            needs more memory than a scan and an update layer by layer.
    """
    options, schedule = LossOptions.of(config), make_schedule(config.optim, config.num_steps)
    optimizer = make_optimizer(config.optim, config.num_steps, in_parts=not unroll)

    def loss(trained: Params, frozen: Params, microbatch: Batch) -> jax.Array:
        model = partition.join(trained, frozen)
        return weighted_loss(model.unstack_layers() if unroll else model, microbatch, options)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        total, grads = _accumulated(jax.value_and_grad(loss), state.trained, state.frozen, batch)
        grads = partition.without_frozen_layers(grads)
        norm = optax.tree.norm(grads)
        take, guard = check_step(state.guard, config.guard, total, norm)
        update = functools.partial(_updated, optimizer, partition, config.optim.ema_decay)
        old = (state.trained, state.opt_state, state.ema)
        if unroll:
            trained, opt_state, ema = jax.tree.map(lambda new, old: jnp.where(take, new, old), update(grads, *old), old)
        else:  # in the place of the old ones
            trained, opt_state, ema = jax.lax.cond(take, update, lambda _, *old: old, grads, *old)
        lr = jnp.asarray(schedule(step_count(state.opt_state)), jnp.float32)
        metrics = StepMetrics(total, norm, lr, guard.num_skipped, guard.skipped_in_row)
        return _placed(TrainState(trained, state.frozen, opt_state, ema, guard)), metrics

    def _placed(state: TrainState) -> TrainState:
        """Each array where it was: as the compiled program is given it again."""
        rules = partition.rules
        place = lambda leaf: jax.tree.map(lambda array: rules.constrain(array, *leaf.axes), leaf)  # noqa: E731
        is_param = lambda leaf: isinstance(leaf, nnx.Param)  # noqa: E731
        return jax.tree.map(lambda leaf: place(leaf) if is_param(leaf) else rules.constrain(leaf), state, is_leaf=is_param)

    return jax.jit(step, donate_argnums=0, compiler_options=training_options(target_device_kind()))


def _updated(
    optimizer: optax.GradientTransformation,
    partition: Partition,
    ema_decay: float | None,
    grads: Any,
    trained: Any,
    opt_state: Any,
    ema: Any,
) -> tuple[Params, Any, Params | None]:
    updates, opt_state = optimizer.update(grads, opt_state, trained)
    trained = optax.apply_updates(trained, partition.without_frozen_layers(updates))  # pyright: ignore[reportArgumentType]
    if ema_decay is not None:
        ema = jax.tree.map(lambda mean, now: ema_decay * mean + (1 - ema_decay) * now, ema, trained)
    return trained, opt_state, ema  # pyright: ignore[reportReturnType]


def _accumulated(
    value_and_grad: Callable[..., tuple[jax.Array, Params]], trained: Params, frozen: Params, batch: Batch
) -> tuple[jax.Array, Params]:
    """Loss and gradients summed over the microbatches [A, B, T]."""
    if batch.tokens.shape[0] == 1:
        return value_and_grad(trained, frozen, jax.tree.map(lambda array: array[0], batch))

    def add(sums: Any, microbatch: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, value_and_grad(trained, frozen, microbatch)), None

    zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, trained))
    return jax.lax.scan(add, zeros, batch)[0]
