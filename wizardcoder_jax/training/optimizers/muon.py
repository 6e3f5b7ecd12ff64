"""Muon: momentum with orthogonalized matrices (Jordan et al., kellerjordan.github.io/posts/muon).

optax's Muon is not used because it orthogonalizes all layers of a stack at once, in float32 and with a copy for each matmul,
which needs too much memory for a model with 15 billion parameters. It also uses NAdam for all other parameters.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from wizardcoder_jax.core.sharding import shard_over_all_devices

# Coefficients (a, b, c) of the iteration x -> a x + b (x x') x + c (x x')^2 x. Five iterations bring singular values to between
# about 0.7 and 1.2; a is as large as possible, so that small ones grow fast (Jordan's post, "Tuning the coefficients").
COEFFICIENTS, NUM_ITERATIONS = (3.4445, -4.7750, 2.0315), 5
MIN_NORM = 1e-7  # smallest norm by which a matrix is divided (eps of torch.optim.Muon)
# Root mean square to which orthogonal updates are scaled. It is that of AdamW's updates, so that AdamW's learning rates can be
# used (Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982, equation 4).
RMS = 0.2


class MuonState(NamedTuple):
    """The optimizer state of Muon. The name of the field is part of array names in checkpoints."""

    mu: dict[str, nnx.Param]  # running mean of the gradients


def num_input_dims(name: str) -> int | None:
    """Return the number of input dims (after the layer dim) of a matrix in the blocks; None for all other parameters."""
    parts = name.split(".")
    if parts[0] != "blocks" or parts[-1] not in ("kernel", "lora_a", "lora_b"):
        return None
    # Only the kernel of attention.out, and lora_a next to it, have two input dims: heads and head dims.
    return 2 if parts[-2] == "out" and parts[-1] != "lora_b" else 1


def scale_by_muon(decay: float) -> optax.GradientTransformation:
    """Return an optax transformation that turns gradients of matrices, by dotted name, into orthogonalized Nesterov momentum.

    Args:
        decay: the decay rate of the running mean of gradients.
    """

    def init(params: Any) -> MuonState:
        return MuonState(optax.tree.zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MuonState]:
        del params
        mean = functools.partial(jax.tree.map, lambda mu, grad: decay * mu + (1 - decay) * grad)
        mu = mean(state.mu, updates)
        nesterov = mean(mu, updates)
        # optax masks the parameters of other optimizers; they are pytrees without leaves, which jax.tree.map leaves unchanged.
        orthogonal = lambda name, param: jax.tree.map(functools.partial(_orthogonalize, name), param)  # noqa: E731
        return {name: orthogonal(name, param) for name, param in nesterov.items()}, MuonState(mu)

    return optax.GradientTransformation(init, update)


def _orthogonalize(name: str, stack: jax.Array) -> jax.Array:
    """Orthogonalize and scale the update of a parameter, [L, *in, *out], one layer after the other."""
    num_in = num_input_dims(name)
    assert num_in is not None
    rows, columns = math.prod(stack.shape[1 : 1 + num_in]), math.prod(stack.shape[1 + num_in :])

    def layer(kernel: jax.Array) -> jax.Array:
        matrix = kernel.reshape(rows, columns)
        orthogonal = newton_schulz(matrix.T).T if rows > columns else newton_schulz(matrix)
        return (RMS * math.sqrt(max(rows, columns)) * orthogonal).reshape(kernel.shape)

    return jax.lax.map(layer, stack)


def newton_schulz(x: jax.Array) -> jax.Array:
    """Bring the singular values of a matrix [I, J], I <= J, close to 1 with Newton-Schulz iterations.

    The longer dim J is sharded over all devices, so devices exchange only the small products x x', [I, I].
    """
    a, b, c = COEFFICIENTS
    x = shard_over_all_devices(x, 1)
    x = x / jnp.maximum(jnp.linalg.norm(x), MIN_NORM)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.T
        x = shard_over_all_devices(a * x + (b * gram + c * gram @ gram) @ x, 1)
    return x
