"""Adafactor (Shazeer and Stern, arXiv 1804.04235, algorithm 4) on each layer's matrices, using optax's factored second moment.

Learning rates are absolute: neither relative to the step nor scaled by the size of the parameters. There is no first moment.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wizardcoder_jax.training.optimizers.muon import num_input_dims

# The paper's defaults: updates with a larger root mean square are scaled down to MAX_RMS, the decay of the second moment is
# 1 - step^-DECAY, and EPS is added to squared gradients.
MAX_RMS, DECAY, EPS = 1.0, 0.8, 1e-30


def adafactor(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Return Adafactor over nnx.Params by dotted name.

    Its state, row and column means, has no logical axes: plain arrays, replicated on all devices.
    """
    moments = optax.scale_by_factored_rms(decay_rate=DECAY, epsilon=EPS)
    rest = optax.chain(optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(schedule))

    def init(params: Any) -> Any:
        return moments.init(_as_matrices(params)), rest.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        result: tuple[Any, Any] = moments.update(_as_matrices(updates), state[0], _as_matrices(params))
        scaled, moments_state = result
        clipped = {
            name: jax.tree.map(lambda array, name=name: _clip(name, scaled[name], array.shape), param)
            for name, param in updates.items()
        }
        updates, rest_state = rest.update(clipped, state[1], params)
        return updates, (moments_state, rest_state)

    return optax.GradientTransformation(init, update)


def _as_matrices(params: Any) -> Any:
    """Return the arrays, kernels of blocks as [L, inputs, outputs]: rows and columns are of the matrix, not of one head."""
    matrices = {}
    for name, param in params.items():
        array, num_dims = param[...], num_input_dims(name)
        if num_dims is not None:
            array = array.reshape(len(array), math.prod(array.shape[1 : 1 + num_dims]), -1)
        matrices[name] = array
    return matrices


def _clip(name: str, update: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return the update in the parameter's `shape`, its root mean square (per layer for stacked layers) limited to MAX_RMS."""
    dims = tuple(range(1 if name.startswith("blocks.") else 0, update.ndim))
    rms = jnp.sqrt(jnp.square(update).mean(dims, keepdims=True))
    return (update / jnp.maximum(1.0, rms / MAX_RMS)).reshape(shape)
