"""Skips harmful steps: those whose loss or gradient is not finite, or whose gradient norm is far above the recent mean."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wizardcoder_jax.config import GuardConfig

NORM_DECAY = 0.95  # decay rate of the running mean of gradient norms, an average over about 20 steps
WARMUP_STEPS = 20  # number of steps after which a norm can count as a spike


class SkipStepState(NamedTuple):
    """The state of step skipping, all scalars. The names of the fields are part of array names in checkpoints."""

    norm_mean: jax.Array  # float32, running mean of the gradient norms of steps that were not skipped
    num_taken: jax.Array  # int32, number of steps that were not skipped
    num_skipped: jax.Array  # int32, number of skipped steps
    skipped_in_row: jax.Array  # int32, number of consecutive skipped steps up to the last step


def init_skip_step() -> SkipStepState:
    """Return the state before the first step."""
    return SkipStepState(jnp.float32(0), jnp.int32(0), jnp.int32(0), jnp.int32(0))


def check_step(state: SkipStepState, config: GuardConfig, loss: jax.Array, norm: jax.Array) -> tuple[jax.Array, SkipStepState]:
    """Return whether to take a step with this loss and global gradient norm (a bool scalar), and the state after the step.

    The running mean is exponential and bias-corrected: i steps ago, a norm has the weight NORM_DECAY^i / (sum of all weights).
    """
    is_taken = jnp.isfinite(loss) & jnp.isfinite(norm)
    if config.spike_factor is not None:
        mean = state.norm_mean / (1 - NORM_DECAY ** jnp.maximum(state.num_taken, 1).astype(jnp.float32))
        is_taken &= (state.num_taken < WARMUP_STEPS) | (norm <= config.spike_factor * mean)
    return is_taken, SkipStepState(
        norm_mean=jnp.where(is_taken, NORM_DECAY * state.norm_mean + (1 - NORM_DECAY) * norm, state.norm_mean),
        num_taken=state.num_taken + is_taken,
        num_skipped=state.num_skipped + ~is_taken,
        skipped_in_row=jnp.where(is_taken, 0, state.skipped_in_row + 1),
    )
