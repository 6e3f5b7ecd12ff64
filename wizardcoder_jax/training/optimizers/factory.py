"""Builds the optimizer and its learning rate schedule: those of optax, except for Muon and Adafactor."""

from typing import Any

import jax
import optax

from wizardcoder_jax.config import OptimConfig
from wizardcoder_jax.training.optimizers.adafactor import adafactor
from wizardcoder_jax.training.optimizers.muon import num_input_dims, scale_by_muon
from wizardcoder_jax.training.optimizers.quantized_moments import quantize_moments


def make_schedule(config: OptimConfig, num_steps: int) -> optax.Schedule:
    """Return the learning rate schedule: a linear warmup from 0, then `config.schedule` up to step `num_steps`.

    The schedules cosine, linear and wsd (warmup, stable, decay: arXiv 2404.06395) end at final_lr_fraction of the peak.
    """
    num_warmup = min(config.warmup_steps, num_steps)
    num_after = max(num_steps - num_warmup, 1)
    peak, final = config.peak_lr, config.peak_lr * config.final_lr_fraction
    if config.schedule == "cosine":
        after = optax.schedules.cosine_decay_schedule(peak, num_after, alpha=config.final_lr_fraction)
    elif config.schedule == "linear":
        after = optax.schedules.linear_schedule(peak, final, num_after)
    elif config.schedule == "wsd":
        num_decay: Any = min(config.decay_fraction * num_steps, num_after)  # optax accepts floats here, but its types do not
        after = optax.schedules.linear_schedule(peak, final, num_decay, transition_begin=num_after - num_decay)
    else:
        after = optax.schedules.constant_schedule(peak)
    if not num_warmup:
        return after
    warmup = optax.schedules.linear_schedule(0.0, peak, num_warmup)
    return optax.schedules.join_schedules([warmup, after], [num_warmup])


def make_optimizer(config: OptimConfig, num_steps: int, layerwise: bool = False) -> optax.GradientTransformation:
    """Return the optimizer of a run for nnx.Params by dotted name, including clipping of gradients by their global norm.

    Args:
        config: the optimizer and its settings.
        num_steps: number of steps of the run, used by the schedule.
        layerwise: whether to update layer by layer, which takes less memory and more time (layerwise_update.py).
    """
    schedule, weight_decay = make_schedule(config, num_steps), config.weight_decay
    adamw = optax.adamw(schedule, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=weight_decay)
    if config.name == "adamw":
        inner = adamw
    elif config.name == "lion":
        inner = optax.lion(schedule, b1=config.b1, b2=config.b2, weight_decay=weight_decay)
    elif config.name == "muon":
        rest = (optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(schedule))
        inner = optax.partition({"muon": optax.chain(scale_by_muon(config.b1), *rest), "adamw": adamw}, _muon_or_adamw)
    else:
        inner = adafactor(schedule, weight_decay)
    if config.name != "adafactor":  # Adafactor has no full-size moments to quantize
        inner = quantize_moments(inner, config.moment_dtype, layerwise)
    return inner if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(config.clip_norm), inner)


def step_count(opt_state: optax.OptState) -> jax.Array:
    """Return the number of updates made so far, an int32 scalar."""
    return optax.tree.get_all_with_path(opt_state, "count")[0][1]


def _muon_or_adamw(params: Any) -> dict[str, str]:
    return {name: "adamw" if num_input_dims(name) is None else "muon" for name in params}
