"""Steps that would do harm: a loss or gradient that is not finite, a gradient norm far above what is usual."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wizardcoder_jax.config import GuardConfig

NORM_DECAY = 0.95  # of the running mean of gradient norms: about the last 20 steps count
WARMUP_STEPS = 20  # steps that are taken before a norm can be a spike


class SkipStepState(NamedTuple):
    """What the guard remembers from step to step; scalars."""

    norm_mean: jax.Array  # float32, running mean of the norms of steps that were taken
    num_taken: jax.Array  # int32
    num_skipped: jax.Array  # int32
    skipped_in_row: jax.Array  # int32, up to now


def init_skip_step() -> SkipStepState:
    """Before the first step."""
    return SkipStepState(jnp.float32(0), jnp.int32(0), jnp.int32(0), jnp.int32(0))


def check_step(guard: SkipStepState, config: GuardConfig, loss: jax.Array, norm: jax.Array) -> tuple[jax.Array, SkipStepState]:
    """Whether to take a step of this loss and global gradient norm (bool scalar), and the guard after it.

    The running mean is an exponential one without bias: weights NORM_DECAY^i of the i-th last norm, divided by their sum.
    """
    take = jnp.isfinite(loss) & jnp.isfinite(norm)
    if config.spike_factor is not None:
        mean = guard.norm_mean / (1 - NORM_DECAY ** jnp.maximum(guard.num_taken, 1).astype(jnp.float32))
        take &= (guard.num_taken < WARMUP_STEPS) | (norm <= config.spike_factor * mean)
    return take, SkipStepState(
        norm_mean=jnp.where(take, NORM_DECAY * guard.norm_mean + (1 - NORM_DECAY) * norm, guard.norm_mean),
        num_taken=guard.num_taken + take,
        num_skipped=guard.num_skipped + ~take,
        skipped_in_row=jnp.where(take, 0, guard.skipped_in_row + 1),
    )
