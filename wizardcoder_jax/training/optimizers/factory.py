"""The optimizers and their learning rates. What optax has is optax's; how moments are held is moments.py's."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wizardcoder_jax.config import OptimConfig
from wizardcoder_jax.training.optimizers.adafactor import adafactor
from wizardcoder_jax.training.optimizers.muon import num_input_dims, scale_by_muon
from wizardcoder_jax.training.optimizers.quantized_moments import quantize_moments


def make_schedule(config: OptimConfig, num_steps: int) -> optax.Schedule:
    """Learning rate by step: 0 to the peak over the warmup, then as `config.schedule` says, to `num_steps`.

    Cosine, linear and wsd (warmup, stable, decay: arXiv 2404.06395) end at final_lr_fraction of the peak.
    """
    warmup = min(config.warmup_steps, num_steps)
    after = max(num_steps - warmup, 1)
    final, falls = config.final_lr_fraction, min(config.decay_fraction * num_steps, after)

    def schedule(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        done = jnp.clip((step - warmup) / after, 0, 1)
        left = {
            "cosine": (1 + jnp.cos(math.pi * done)) / 2,
            "linear": 1 - done,
            "wsd": jnp.clip((num_steps - step) / falls, 0, 1),
            "constant": jnp.float32(1),
        }[config.schedule]
        factor = final + (1 - final) * left if config.schedule != "constant" else left
        return config.peak_lr * jnp.where(step < warmup, step / max(warmup, 1), factor)

    return schedule


def make_optimizer(config: OptimConfig, num_steps: int, in_parts: bool = False) -> optax.GradientTransformation:
    """The optimizer of `num_steps` steps, over nnx.Params by dotted name; gradients are clipped first, by their global norm.

    Args:
        config: which, and its settings.
        num_steps: of the run, for the schedule.
        in_parts: update layer by layer, in less memory and more time (parts.py).
    """
    schedule, wd = make_schedule(config, num_steps), config.weight_decay
    adamw = optax.adamw(schedule, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=wd)
    if config.name == "adamw":
        inner = adamw
    elif config.name == "lion":
        inner = optax.lion(schedule, b1=config.b1, b2=config.b2, weight_decay=wd)
    elif config.name == "muon":
        rest = (optax.add_decayed_weights(wd), optax.scale_by_learning_rate(schedule))
        inner = optax.partition({"muon": optax.chain(scale_by_muon(config.b1), *rest), "adamw": adamw}, _muon_or_adamw)
    else:
        inner = adafactor(schedule, wd)
    if config.name != "adafactor":  # which has none
        inner = quantize_moments(inner, config.moment_dtype, in_parts)
    return inner if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(config.clip_norm), inner)


def step_count(opt_state: optax.OptState) -> jax.Array:
    """Updates that the optimizer has made, an int32 scalar."""
    return optax.tree.get_all_with_path(opt_state, "count")[0][1]


def _muon_or_adamw(params: Any) -> dict[str, str]:
    return {name: "adamw" if num_input_dims(name) is None else "muon" for name in params}
