"""Adafactor (Shazeer and Stern, arXiv 1804.04235, algorithm 4) of each layer's matrices, over optax's factored second moment.

Learning rates are taken as they are: neither relative to the step nor scaled by the parameters' size. No first moment is kept.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wizardcoder_jax.training.optimizers.muon import num_input_dims

# The paper's defaults: updates of a larger root mean square are scaled down, the decay of the second moment is 1 - step^-0.8,
# and so much is added to squared gradients.
LARGEST_RMS, DECAY, EPS = 1.0, 0.8, 1e-30


def adafactor(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Over nnx.Params by dotted name. Its state, rows and columns, lies as no parameter does: plain arrays, replicated."""
    moments = optax.scale_by_factored_rms(decay_rate=DECAY, epsilon=EPS)
    rest = optax.chain(optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(schedule))

    def init(params: Any) -> Any:
        return moments.init(_matrices(params)), rest.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        found: tuple[Any, Any] = moments.update(_matrices(updates), state[0], _matrices(params))
        scaled, second = found
        clipped = {
            name: jax.tree.map(lambda array, name=name: _clipped(name, scaled[name], array.shape), param)
            for name, param in updates.items()
        }
        updates, counted = rest.update(clipped, state[1], params)
        return updates, (second, counted)

    return optax.GradientTransformation(init, update)


def _matrices(params: Any) -> Any:
    """The arrays, blocks' kernels as [L, inputs, outputs]: rows and columns are of the whole matrix, not of one head's."""
    found = {}
    for name, param in params.items():
        array, num_in = param[...], num_input_dims(name)
        found[name] = array if num_in is None else array.reshape(len(array), math.prod(array.shape[1 : 1 + num_in]), -1)
    return found


def _clipped(name: str, update: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """An update whose root mean square, of each layer's array where layers are stacked, is no larger than LARGEST_RMS.

    Returned in the parameter's own `shape`.
    """
    dims = tuple(range(1 if name.startswith("blocks.") else 0, update.ndim))
    rms = jnp.sqrt(jnp.square(update).mean(dims, keepdims=True))
    return (update / jnp.maximum(1.0, rms / LARGEST_RMS)).reshape(shape)
