"""Projections, norms, the MLP, the look-up of rows: parameters with shape, logical axes and initialiser on one line."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wizardcoder_jax.core.sharding import COMPUTE_AXES, Axes, ShardingRules, is_cpu_target
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.nf4 import Nf4Kernel
from wizardcoder_jax.models.remat import UP, keep


class Initializer:
    """Makes the parameters of one model, each from its own key; a leading dim for layers that are stacked.

    Args:
        key: a PRNG key.
        lead: leading dims of every parameter, (L,) inside the stack of blocks.
    """

    def __init__(self, key: jax.Array, lead: tuple[int, ...] = ()) -> None:
        self._key, self._lead, self._count = key, lead, 0

    def normal(self, shape: tuple[int, ...], axes: Axes, stddev: float = 0.02) -> nnx.Param:
        """A parameter drawn from N(0, stddev^2)."""
        self._count += 1
        key = jax.random.fold_in(self._key, self._count)
        return nnx.Param(stddev * jax.random.normal(key, self._lead + shape, jnp.float32), axes=axes)

    def constant(self, shape: tuple[int, ...], axes: Axes, value: float) -> nnx.Param:
        """A parameter filled with `value`."""
        return nnx.Param(jnp.full(self._lead + shape, value, jnp.float32), axes=axes)

    def stacked(self, num_layers: int) -> "Initializer":
        """The initialiser of `num_layers` blocks at once."""
        return Initializer(jax.random.fold_in(self._key, 0), (num_layers,))


class Projection(nnx.Module):
    """x @ kernel + bias over the last `num_in` dims of x, in x's dtype; with an adapter, x @ (kernel + a b lora_scale) + bias.

    Args:
        init: makes the parameters.
        shape: input dims, then output dims.
        axes: logical axes of `shape`.
        num_in: how many dims of `shape` are input dims.
        use_bias: whether there is a bias over the output dims.
        rules: how tensors are split over the mesh.
    """

    def __init__(
        self, init: Initializer, shape: tuple[int, ...], axes: Axes, num_in: int, use_bias: bool, rules: ShardingRules
    ) -> None:
        self.kernel: nnx.Param | Nf4Kernel = init.normal(shape, axes, stddev=1 / math.sqrt(math.prod(shape[:num_in])))
        self.scale: nnx.Param | None = None  # [*out] float32: what a step of an int8 kernel is worth (models/int8.py)
        self.bias = init.constant(shape[num_in:], axes[num_in:], 0.0) if use_bias else None
        self.lora_a: nnx.Param | None = None  # [*in, R] float32 (models/lora.py)
        self.lora_b: nnx.Param | None = None  # [R, *out] float32
        self.lora_scale = 1.0
        self.num_in, self.axes, self.rules = num_in, axes, rules

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., *in] -> [..., *out]."""
        return self._finished(x, self._product(x))

    def _finished(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """`y`, x's product with the kernel, with what else there is."""
        if self.lora_a is not None and self.lora_b is not None:
            a = self.rules.all_gather(self.lora_a[...].astype(x.dtype), *self.axes[: self.num_in], None)
            b = self.rules.all_gather(self.lora_b[...].astype(x.dtype), None, *self.axes[self.num_in :])
            y = y + jnp.tensordot(jnp.tensordot(x, a, self.num_in) * self.lora_scale, b, 1)
        if self.bias is None:
            return y
        return y + self.rules.all_gather(self.bias[...].astype(x.dtype), *self.axes[self.num_in :])

    def dense_kernel(self) -> jax.Array:
        """What the kernel and the adapter of one layer amount to: [*in, *out] float32."""
        held = self.kernel
        kernel = held.dense(jnp.float32) if isinstance(held, Nf4Kernel) else held[...].astype(jnp.float32)
        if self.scale is not None:
            kernel = kernel * self.scale[...]
        if self.lora_a is None or self.lora_b is None:
            return kernel
        return kernel + jnp.tensordot(self.lora_a[...] * self.lora_scale, self.lora_b[...], 1, precision="highest")

    def _product(self, x: jax.Array) -> jax.Array:
        """The product with the kernel. What int8 or NF4 stands for is made anew for the backward pass, as it is larger."""
        if isinstance(self.kernel, Nf4Kernel):
            product = lambda x, kernel: jnp.tensordot(x, kernel.dense(x.dtype), self.num_in)  # noqa: E731
            return jax.checkpoint(product)(x, self.kernel)
        if self.scale is None:
            return self._product_of_floats(x, self.kernel[...])

        def product_of_steps(x: jax.Array, kernel: jax.Array) -> jax.Array:
            kernel = self.rules.all_gather(kernel, *self.axes).astype(x.dtype)
            return jnp.tensordot(x, kernel, self.num_in)

        return (jax.checkpoint(product_of_steps)(x, self.kernel[...]) * self.scale[...]).astype(x.dtype)

    def _held_rows(self) -> jax.Array | None:
        """The kernel [D, ...], where it is of floats and devices hold rows of it, of which each needs all columns."""
        if is_cpu_target() or self.scale is not None or isinstance(self.kernel, Nf4Kernel) or self.axes[0] != "embed":
            return None
        kernel: jax.Array = self.kernel[...]
        split = [axis for axis, dim in zip(self.axes, kernel.shape, strict=True) if axis and self.rules.mesh_axes(axis, dim)]
        return kernel if split == ["embed"] else None

    def _product_of_floats(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        embed = self.axes.index("embed")
        if is_cpu_target() or not self.rules.mesh_axes("embed", kernel.shape[embed]):
            return jnp.tensordot(x, self.rules.all_gather(kernel.astype(x.dtype), *self.axes), self.num_in)
        kernel = cast_weight(kernel, x.dtype)
        if embed < self.num_in:
            return jnp.tensordot(x, self.rules.all_gather(kernel, *self.axes), self.num_in)
        # Devices hold rows of "embed": with them in front, what is gathered lies as the products forward and backward read it.
        # The barrier keeps the compiler from turning the dims again, which would be a copy of the kernel.
        axes = ("embed", *self.axes[:embed])
        rows = _as_it_lies(self.rules.constrain(jnp.moveaxis(kernel, embed, 0), *axes))
        return jnp.tensordot(
            x, self.rules.all_gather(rows, *axes), (tuple(range(-self.num_in, 0)), tuple(range(1, self.num_in + 1)))
        )


def apply_fused(x: jax.Array, *projections: Projection) -> list[jax.Array]:
    """What projections [D, *, H] make of x [..., D]: [..., *, H] each.

    Where devices hold rows of their kernels these are gathered and multiplied as one, which is few large exchanges and products
    in place of many small ones; else apart.
    """
    kernels = [kernel for projection in projections if (kernel := projection._held_rows()) is not None]
    if len(kernels) < len(projections):
        return [projection(x) for projection in projections]
    rules, ends = projections[0].rules, np.cumsum([kernel.shape[1] for kernel in kernels])[:-1]
    kernel: Any = cast_weight(jnp.concatenate(kernels, axis=1), x.dtype)
    products = jnp.split(jnp.tensordot(x, rules.all_gather(kernel, "embed", None, None), 1), ends, axis=-2)
    return [projection._finished(x, y) for projection, y in zip(projections, products, strict=True)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def cast_weight(weight: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """One layer's weight in the dtype of its product, made where it is used.

    XLA would otherwise see that nothing else is done with the weights of all layers, and hold them all in that dtype besides.
    It does not look through the bits of a number.
    """
    if weight.dtype != jnp.float32 or dtype == weight.dtype:
        return weight.astype(dtype)
    bits = jax.lax.optimization_barrier(jax.lax.bitcast_convert_type(weight, jnp.uint32))
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(dtype)


def _cast_forward(weight: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    return cast_weight(weight, dtype), jnp.zeros((), weight.dtype)


def _cast_backward(dtype: jnp.dtype, held: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    return (grad.astype(held.dtype),)


cast_weight.defvjp(_cast_forward, _cast_backward)


@jax.custom_vjp
def _as_it_lies(x: jax.Array) -> jax.Array:
    """`x` behind a barrier; its gradient is behind none, so that it is summed over devices by parts."""
    return jax.lax.optimization_barrier(x)


_as_it_lies.defvjp(lambda x: (_as_it_lies(x), None), lambda _, grad: (grad,))


class Norm(nnx.Module):
    """LayerNorm (with bias) or RMSNorm over the last dim, computed in float32."""

    def __init__(self, init: Initializer, arch: ArchConfig) -> None:
        self.scale = init.constant((arch.embed_dim,), (None,), 1.0)
        self.bias = init.constant((arch.embed_dim,), (None,), 0.0) if arch.norm == "layer" else None
        self.eps = arch.norm_eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D]."""
        y, share = x.astype(jnp.float32), 1 / x.shape[-1]  # a mean is a sum of shares: on TPU dividing would be one step more
        if self.bias is not None:
            y = y - (y * share).sum(-1, keepdims=True)
        y = y * jax.lax.rsqrt((jnp.square(y) * share).sum(-1, keepdims=True) + self.eps)
        y = y * self.scale[...].astype(jnp.float32)
        if self.bias is not None:
            y = y + self.bias[...].astype(jnp.float32)
        return y.astype(x.dtype)


class Mlp(nnx.Module):
    """gelu(x up) down, or (silu(x gate) * x up) down."""

    def __init__(self, init: Initializer, arch: ArchConfig, rules: ShardingRules) -> None:
        shape, axes, use_bias = (arch.embed_dim, arch.mlp_dim), ("embed", "mlp"), arch.bias == "all"
        self.gate = Projection(init, shape, axes, 1, use_bias, rules) if arch.mlp == "swiglu" else None
        self.up = Projection(init, shape, axes, 1, use_bias, rules)
        self.down = Projection(init, shape[::-1], axes[::-1], 1, use_bias, rules)
        self.activation, self.rules = arch.mlp, rules

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        hidden = keep(self.rules.constrain(self.up(x), "batch", None, "mlp"), UP)
        if self.gate is not None:
            hidden = _gated(keep(self.gate(x), UP), hidden)
        else:
            hidden = _gelu(hidden, by_tanh=self.activation == "gelu_tanh")
        return self.down(hidden)


def _gelu(x: jax.Array, *, by_tanh: bool) -> jax.Array:
    """The gaussian error linear unit, in float32 at least, as torch computes it.

    By erf: of erfc, which jax.nn.gelu takes, TPUs compare the signs in a pass over the units of its own.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = jax.nn.gelu(wide, approximate=True) if by_tanh else 0.5 * wide * (1 + jax.lax.erf(wide * math.sqrt(0.5)))
    return y.astype(x.dtype)


@jax.custom_vjp
def _gated(gate: jax.Array, up: jax.Array) -> jax.Array:
    """silu(gate) up. Its gradients are products of what is held: XLA on CPU fuses them with the transposition for the matrix
    products that follow, and would take an exponential by itself for each number there.
    """
    return gate * jax.nn.sigmoid(gate) * up


def _gated_forward(gate: jax.Array, up: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    share = jax.nn.sigmoid(gate)
    return gate * share * up, (gate, up, share)


def _gated_backward(held: tuple[jax.Array, jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    gate, up, share = held
    return grad * up * share * (1 + gate * (1 - share)), grad * gate * share


_gated.defvjp(_gated_forward, _gated_backward)


def embedding_lookup(table: jax.Array, indices: jax.Array, axis: str, rules: ShardingRules, dtype: jnp.dtype) -> jax.Array:
    """Rows of a table [V, D], [B, T] -> [B, T, D]; a device that computes with a part of it adds the rows that are there.

    They have `dtype`'s precision, in which the table is gathered and its gradient summed over devices, as a kernel's is; the
    gradient of the places of one device is summed in the table's own.

    Args:
        table: one row an index.
        indices: int32.
        axis: logical axis of the rows.
        rules: how tensors are split over the mesh.
        dtype: of activations.
    """
    part_of = COMPUTE_AXES[axis]
    names = rules.mesh_axes(part_of, table.shape[0])

    def part(table: jax.Array, rows: jax.Array, indices: jax.Array) -> jax.Array:
        if not names:
            return table[indices]
        here = indices - rows[0]
        found = table[jnp.clip(here, 0, len(rows) - 1)]
        return jax.lax.psum(jnp.where(((here >= 0) & (here < len(rows)))[..., None], found, 0), names)

    in_axes, out = ((part_of, None), (part_of,), ("batch", None)), ((*indices.shape, table.shape[1]), ("batch", None, None))
    all_gather = rules.all_gather(table.astype(dtype), axis, None).astype(jnp.promote_types(table.dtype, dtype))
    return rules.shard_map(part, in_axes, out)(all_gather, jnp.arange(table.shape[0]), indices)
