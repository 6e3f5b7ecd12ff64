"""Muon: momentum with orthogonalized matrices (Jordan et al., kellerjordan.github.io/posts/muon).

Not optax's, which orthogonalizes all layers of a stack at once, in float32 and with a copy per matmul: at 15 billion weights no
accelerator has the memory for that. optax also leaves the parameters that are not matrices to NAdam.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from wizardcoder_jax.core.sharding import shard_over_all_devices

# Five iterations of x -> a x + b (x x') x + c (x x')^2 x bring singular values to between about 0.7 and 1.2; a is as large as
# possible, so that small singular values grow fast (Jordan's post, "Tuning the coefficients").
COEFFICIENTS, NUM_ITERATIONS = (3.4445, -4.7750, 2.0315), 5
MIN_NORM = 1e-7  # a matrix is divided by its norm, or by this (eps of torch.optim.Muon)
# Scales an orthogonal update to the root mean square of AdamW's updates, so that AdamW's learning rates fit (Liu et al., "Muon
# is Scalable for LLM Training", arXiv 2502.16982, equation 4).
RMS = 0.2


class MuonState(NamedTuple):
    """The optimizer state of Muon. The field's name is that of arrays in checkpoints."""

    mu: dict[str, nnx.Param]  # running mean of the gradients


def num_input_dims(name: str) -> int | None:
    """Return how many dims of a block's matrix, after the layer dim, are its inputs; None for all other parameters."""
    parts = name.split(".")
    if parts[0] != "blocks" or parts[-1] not in ("kernel", "lora_a", "lora_b"):
        return None
    # The inputs of attention.out are heads and head dims; all other kernels, and an adapter's rank, have one input dim.
    return 2 if parts[-2] == "out" and parts[-1] != "lora_b" else 1


def scale_by_muon(decay: float) -> optax.GradientTransformation:
    """Return the transformation of gradients of blocks' matrices, by dotted name, into orthogonalized Nesterov momentum.

    Args:
        decay: of the running mean.
    """

    def init(params: Any) -> MuonState:
        return MuonState(optax.tree.zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MuonState]:
        del params
        mean = functools.partial(jax.tree.map, lambda mu, grad: decay * mu + (1 - decay) * grad)
        mu = mean(state.mu, updates)
        nesterov = mean(mu, updates)
        # Parameters that belong to another optimizer have no leaves here.
        orthogonal = lambda name, param: jax.tree.map(functools.partial(_orthogonalize, name), param)  # noqa: E731
        return {name: orthogonal(name, param) for name, param in nesterov.items()}, MuonState(mu)

    return optax.GradientTransformation(init, update)


def _orthogonalize(name: str, stack: jax.Array) -> jax.Array:
    """Return the kernels of a parameter, [L, *in, *out], orthogonalized one layer after the other, and scaled."""
    num_in = num_input_dims(name)
    assert num_in is not None
    rows, columns = math.prod(stack.shape[1 : 1 + num_in]), math.prod(stack.shape[1 + num_in :])

    def layer(kernel: jax.Array) -> jax.Array:
        matrix = kernel.reshape(rows, columns)
        orthogonal = newton_schulz(matrix.T).T if rows > columns else newton_schulz(matrix)
        return (RMS * math.sqrt(max(rows, columns)) * orthogonal).reshape(kernel.shape)

    return jax.lax.map(layer, stack)


def newton_schulz(x: jax.Array) -> jax.Array:
    """Return [I, J], I <= J, with singular values brought close to 1.

    The long dim is sharded over all devices, so they exchange only sums of the short products x x', [I, I].
    """
    a, b, c = COEFFICIENTS
    x = shard_over_all_devices(x, 1)
    x = x / jnp.maximum(jnp.linalg.norm(x), MIN_NORM)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.T
        x = shard_over_all_devices(a * x + (b * gram + c * gram @ gram) @ x, 1)
    return x
