"""Adafactor (Shazeer and Stern, arXiv 1804.04235, algorithm 4), applied to the matrices of each layer separately.

It uses optax's factored second moment and no first moment. The learning rate is used as given, without the paper's relative
step sizes and without scaling by the root mean square of the parameters.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wizardcoder_jax.training.optimizers.muon import num_input_dims

# The paper's defaults: an update is scaled down if its root mean square exceeds MAX_RMS, the decay of the second moment is
# 1 - step^-DECAY, and EPS is added to squared gradients.
MAX_RMS, DECAY, EPS = 1.0, 0.8, 1e-30


def adafactor(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Return the optimizer Adafactor for nnx.Params by dotted name.

    Its state, means of rows and columns, consists of plain arrays without logical axes, which are replicated on all devices.
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
    """Return the parameters as arrays, with kernels of blocks reshaped to [L, inputs, outputs], merging heads and head dims."""
    matrices = {}
    for name, param in params.items():
        array, num_dims = param[...], num_input_dims(name)
        if num_dims is not None:
            array = array.reshape(len(array), math.prod(array.shape[1 : 1 + num_dims]), -1)
        matrices[name] = array
    return matrices


def _clip(name: str, update: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Reshape the update to `shape` and limit its root mean square to MAX_RMS, layer by layer for stacked layers."""
    dims = tuple(range(1 if name.startswith("blocks.") else 0, update.ndim))
    rms = jnp.sqrt(jnp.square(update).mean(dims, keepdims=True))
    return (update / jnp.maximum(1.0, rms / MAX_RMS)).reshape(shape)
