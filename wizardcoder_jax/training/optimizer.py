"""AdamW with linear warmup and cosine decay to zero."""

import jax
import optax

from wizardcoder_jax.config import OptimConfig


def make_schedule(config: OptimConfig, num_steps: int) -> optax.Schedule:
    """Learning rate by step: 0 to the peak over the warmup, then half a cosine to 0 at `num_steps`."""
    warmup = min(config.warmup_steps, num_steps)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else config.peak_lr, config.peak_lr, warmup, max(num_steps, warmup + 1), end_value=0.0
    )


def make_optimizer(config: OptimConfig, num_steps: int) -> optax.GradientTransformation:
    """The optimizer of `num_steps` steps; gradients are clipped by global norm where the config says so."""
    adamw = optax.adamw(
        make_schedule(config, num_steps), b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
    )
    return adamw if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def step_count(opt_state: optax.OptState) -> jax.Array:
    """Updates that the optimizer has made, an int32 scalar."""
    return optax.tree.get_all_with_path(opt_state, "count")[0][1]
