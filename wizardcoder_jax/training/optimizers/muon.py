"""Muon: momentum whose matrices are made orthogonal (Jordan et al., kellerjordan.github.io/posts/muon).

Why not optax's: it orthogonalises all layers of a stack at once, in float32 and with a copy for each product, which no chip
has room for at 15 billion weights; and the weights that are no matrices it leaves to NAdam.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from wizardcoder_jax.core.sharding import shard_over_all_devices

# Five steps of x -> a x + b (x x') x + c (x x')^2 x bring singular values to between about 0.7 and 1.2; a is as large as it
# can be, so that small ones rise fast (Jordan's post, "Tuning the coefficients").
COEFFICIENTS, NUM_ITERATIONS = (3.4445, -4.7750, 2.0315), 5
SMALLEST_NORM = 1e-7  # a matrix is divided by its norm, or by this (torch.optim.Muon's eps)
# Scales an orthogonal update to the root mean square that AdamW's have, so that AdamW's learning rates serve (Liu et al.,
# "Muon is Scalable for LLM Training", arXiv 2502.16982, equation 4).
RMS = 0.2


class MuonState(NamedTuple):
    """What Muon remembers."""

    mu: dict[str, nnx.Param]  # running mean of the gradients


def num_input_dims(name: str) -> int | None:
    """How many dims of a parameter are the inputs of a matrix, after that of layers; None for all but blocks' matrices."""
    parts = name.split(".")
    if parts[0] != "blocks" or parts[-1] not in ("kernel", "lora_a", "lora_b"):
        return None
    # attention.out has heads and their dims as inputs, the other kernels have one input dim; an adapter's rank is one dim
    return 2 if parts[-2] == "out" and parts[-1] != "lora_b" else 1


def scale_by_muon(decay: float) -> optax.GradientTransformation:
    """Turns gradients of blocks' matrices, by dotted name, into orthogonal updates with Nesterov's look ahead.

    Args:
        decay: of the running mean.
    """

    def init(params: Any) -> MuonState:
        return MuonState(optax.tree.zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MuonState]:
        del params
        mean = functools.partial(jax.tree.map, lambda mu, grad: decay * mu + (1 - decay) * grad)
        mu = mean(state.mu, updates)
        ahead = mean(mu, updates)
        # What is another optimizer's has no leaves.
        orthogonal = lambda name, param: jax.tree.map(functools.partial(_orthogonal, name), param)  # noqa: E731
        return {name: orthogonal(name, param) for name, param in ahead.items()}, MuonState(mu)

    return optax.GradientTransformation(init, update)


def _orthogonal(name: str, stack: jax.Array) -> jax.Array:
    """The kernels of a parameter, [L, *in, *out], made orthogonal one after the other, and scaled."""
    num_in = num_input_dims(name)
    assert num_in is not None
    rows, columns = math.prod(stack.shape[1 : 1 + num_in]), math.prod(stack.shape[1 + num_in :])

    def layer(kernel: jax.Array) -> jax.Array:
        matrix = kernel.reshape(rows, columns)
        found = newton_schulz(matrix.T).T if rows > columns else newton_schulz(matrix)
        return (RMS * math.sqrt(max(rows, columns)) * found).reshape(kernel.shape)

    return jax.lax.map(layer, stack)


def newton_schulz(x: jax.Array) -> jax.Array:
    """[I, J] with I <= J, its singular values brought near 1.

    The long dim is split over all devices: what they then exchange is the sum of the short products x x', [I, I].
    """
    a, b, c = COEFFICIENTS
    x = shard_over_all_devices(x, 1)
    x = x / jnp.maximum(jnp.linalg.norm(x), SMALLEST_NORM)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.T
        x = shard_over_all_devices(a * x + (b * gram + c * gram @ gram) @ x, 1)
    return x
