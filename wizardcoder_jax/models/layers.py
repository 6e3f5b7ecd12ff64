"""Projections, norms, the MLP and the embedding lookup."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from wizardcoder_jax.core.sharding import COMPUTE_AXES, Axes, ShardingRules, is_cpu_target
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.nf4 import Nf4Kernel
from wizardcoder_jax.models.remat import UP


class Initializer:
    """A factory of parameters. Each parameter gets its own PRNG key and, in stacked blocks, a leading layer dim.

    Args:
        key: PRNG key from which the keys of the parameters derive.
        lead: leading dims of every parameter: (L,) in stacked blocks, otherwise ().
    """

    def __init__(self, key: jax.Array, lead: tuple[int, ...] = ()) -> None:
        self._key, self._lead, self._count = key, lead, 0

    def normal(self, shape: tuple[int, ...], axes: Axes, stddev: float = 0.02) -> nnx.Param:
        """Create a parameter drawn from N(0, stddev^2)."""
        self._count += 1
        key = jax.random.fold_in(self._key, self._count)
        return nnx.Param(stddev * jax.random.normal(key, self._lead + shape, jnp.float32), axes=axes)

    def constant(self, shape: tuple[int, ...], axes: Axes, value: float) -> nnx.Param:
        """Create a parameter filled with `value`."""
        return nnx.Param(jnp.full(self._lead + shape, value, jnp.float32), axes=axes)

    def stacked(self, num_layers: int) -> "Initializer":
        """Return an initializer that creates the parameters of `num_layers` stacked blocks."""
        return Initializer(jax.random.fold_in(self._key, 0), (num_layers,))


class Projection(nnx.Module):
    """A linear layer over the last `num_in` dims of x, computed in x's dtype: x @ kernel + bias.

    With a LoRA adapter it computes x @ (kernel + a b lora_scale) + bias.

    Args:
        init: factory of the parameters.
        shape: input dims, then output dims.
        axes: logical axes of `shape`.
        num_in: number of input dims in `shape`.
        use_bias: whether to add a bias over the output dims.
        rules: how tensors are split over the mesh.
    """

    def __init__(
        self, init: Initializer, shape: tuple[int, ...], axes: Axes, num_in: int, use_bias: bool, rules: ShardingRules
    ) -> None:
        self.kernel: nnx.Param | Nf4Kernel = init.normal(shape, axes, stddev=1 / math.sqrt(math.prod(shape[:num_in])))
        self.scale: nnx.Param | None = None  # [*out] float32 scale of an int8 kernel (models/int8.py)
        self.bias = init.constant(shape[num_in:], axes[num_in:], 0.0) if use_bias else None
        self.lora_a: nnx.Param | None = None  # [*in, R] float32 adapter (models/lora.py)
        self.lora_b: nnx.Param | None = None  # [R, *out] float32 adapter
        self.lora_scale = 1.0
        self.num_in, self.axes, self.rules = num_in, axes, rules

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the projection: [..., *in] -> [..., *out]."""
        return self._add_adapter_and_bias(x, self._product(x))

    def _add_adapter_and_bias(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Add the adapter's output for `x` and the bias to `y`, the product of `x` with the kernel."""
        if self.lora_a is not None and self.lora_b is not None:
            a = self.rules.all_gather(self.lora_a[...].astype(x.dtype), *self.axes[: self.num_in], None)
            b = self.rules.all_gather(self.lora_b[...].astype(x.dtype), None, *self.axes[self.num_in :])
            y = y + jnp.tensordot(jnp.tensordot(x, a, self.num_in) * self.lora_scale, b, 1)
        if self.bias is None:
            return y
        return y + self.rules.all_gather(self.bias[...].astype(x.dtype), *self.axes[self.num_in :])

    def merged_kernel(self) -> jax.Array:
        """Return the kernel of one layer, dequantized and with the adapter merged: [*in, *out] float32."""
        stored = self.kernel
        kernel = stored.dequantize(jnp.float32) if isinstance(stored, Nf4Kernel) else stored[...].astype(jnp.float32)
        if self.scale is not None:
            kernel = kernel * self.scale[...]
        if self.lora_a is None or self.lora_b is None:
            return kernel
        return kernel + jnp.tensordot(self.lora_a[...] * self.lora_scale, self.lora_b[...], 1, precision="highest")

    def _product(self, x: jax.Array) -> jax.Array:
        """Multiply `x` by the kernel. The backward pass dequantizes int8 and NF4 kernels again instead of storing floats."""
        if isinstance(self.kernel, Nf4Kernel):
            product = lambda x, kernel: jnp.tensordot(x, kernel.dequantize(x.dtype), self.num_in)  # noqa: E731
            return jax.checkpoint(product)(x, self.kernel)
        if self.scale is None:
            return self._float_product(x, self.kernel[...])

        def int8_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
            kernel = self.rules.all_gather(kernel, *self.axes).astype(x.dtype)
            return jnp.tensordot(x, kernel, self.num_in)

        return (jax.checkpoint(int8_product)(x, self.kernel[...]) * self.scale[...]).astype(x.dtype)

    def _row_split_kernel(self) -> jax.Array | None:
        """Return the kernel [D, ...] if it is not quantized and is split along D only; otherwise, and on CPU, return None."""
        if is_cpu_target() or self.scale is not None or isinstance(self.kernel, Nf4Kernel) or self.axes[0] != "embed":
            return None
        kernel: jax.Array = self.kernel[...]
        split = [axis for axis, dim in zip(self.axes, kernel.shape, strict=True) if axis and self.rules.mesh_axes(axis, dim)]
        return kernel if split == ["embed"] else None

    def _float_product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        embed = self.axes.index("embed")
        if is_cpu_target() or not self.rules.mesh_axes("embed", kernel.shape[embed]):
            return jnp.tensordot(x, self.rules.all_gather(kernel.astype(x.dtype), *self.axes), self.num_in)
        kernel = cast_weight(kernel, x.dtype)
        if embed < self.num_in:
            return jnp.tensordot(x, self.rules.all_gather(kernel, *self.axes), self.num_in)
        # The kernel is split along "embed". If that dim comes first, the gathered kernel has the layout that the forward and
        # backward products read. The barrier keeps the compiler from transposing the kernel back, which would copy it.
        axes = ("embed", *self.axes[:embed])
        rows = _keep_layout(self.rules.constrain(jnp.moveaxis(kernel, embed, 0), *axes))
        return jnp.tensordot(
            x, self.rules.all_gather(rows, *axes), (tuple(range(-self.num_in, 0)), tuple(range(1, self.num_in + 1)))
        )


def apply_fused(x: jax.Array, *projections: Projection) -> list[jax.Array]:
    """Apply several projections [D, *, H] to x [..., D], and return one output [..., *, H] for each.

    Kernels that are split along D are concatenated, so that one large transfer and product replace several small ones.
    """
    kernels = [kernel for projection in projections if (kernel := projection._row_split_kernel()) is not None]
    if len(kernels) < len(projections):
        return [projection(x) for projection in projections]
    rules, ends = projections[0].rules, np.cumsum([kernel.shape[1] for kernel in kernels])[:-1]
    kernel: Any = cast_weight(jnp.concatenate(kernels, axis=1), x.dtype)
    products = jnp.split(jnp.tensordot(x, rules.all_gather(kernel, "embed", None, None), 1), ends, axis=-2)
    return [projection._add_adapter_and_bias(x, y) for projection, y in zip(projections, products, strict=True)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def cast_weight(weight: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Cast one layer's weight to the dtype of the matrix product, right where it is used.

    XLA would move a plain cast of a scanned layer's weight out of the loop, and then store the weights of all layers in both
    dtypes. It does not move a cast across a bitcast.
    """
    if weight.dtype != jnp.float32 or dtype == weight.dtype:
        return weight.astype(dtype)
    bits = jax.lax.optimization_barrier(jax.lax.bitcast_convert_type(weight, jnp.uint32))
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(dtype)


def _cast_forward(weight: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    return cast_weight(weight, dtype), jnp.zeros((), weight.dtype)


def _cast_backward(dtype: jnp.dtype, weight: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    return (grad.astype(weight.dtype),)


cast_weight.defvjp(_cast_forward, _cast_backward)


@jax.custom_vjp
def _keep_layout(x: jax.Array) -> jax.Array:
    """Put an optimization barrier after `x` but not before its gradient, so that the gradient can be reduce-scattered."""
    return jax.lax.optimization_barrier(x)


_keep_layout.defvjp(lambda x: (_keep_layout(x), None), lambda _, grad: (grad,))


class Norm(nnx.Module):
    """LayerNorm (with bias) or RMSNorm over the last dim, computed in float32."""

    def __init__(self, init: Initializer, arch: ArchConfig) -> None:
        self.scale = init.constant((arch.embed_dim,), (None,), 1.0)
        self.bias = init.constant((arch.embed_dim,), (None,), 0.0) if arch.norm == "layer" else None
        self.eps = arch.norm_eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize the last dim: [..., D] -> [..., D]."""
        y, share = x.astype(jnp.float32), 1 / x.shape[-1]  # multiplying by 1/D saves a division on TPU
        if self.bias is not None:
            y = y - (y * share).sum(-1, keepdims=True)
        y = y * jax.lax.rsqrt((jnp.square(y) * share).sum(-1, keepdims=True) + self.eps)
        y = y * self.scale[...].astype(jnp.float32)
        if self.bias is not None:
            y = y + self.bias[...].astype(jnp.float32)
        return y.astype(x.dtype)


class Mlp(nnx.Module):
    """The MLP of a block: gelu(x @ up) @ down, or (silu(x @ gate) * (x @ up)) @ down."""

    def __init__(self, init: Initializer, arch: ArchConfig, rules: ShardingRules) -> None:
        shape, axes, use_bias = (arch.embed_dim, arch.mlp_dim), ("embed", "mlp"), arch.bias == "all"
        self.gate = Projection(init, shape, axes, 1, use_bias, rules) if arch.mlp == "swiglu" else None
        self.up = Projection(init, shape, axes, 1, use_bias, rules)
        self.down = Projection(init, shape[::-1], axes[::-1], 1, use_bias, rules)
        self.activation, self.rules = arch.mlp, rules

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the MLP: [B, T, D] -> [B, T, D]."""
        hidden = checkpoint_name(self.rules.constrain(self.up(x), "batch", None, "mlp"), UP)
        if self.gate is not None:
            hidden = _gated(checkpoint_name(self.gate(x), UP), hidden)
        else:
            hidden = _gelu(hidden, use_tanh=self.activation == "gelu_tanh")
        return self.down(hidden)


def _gelu(x: jax.Array, *, use_tanh: bool) -> jax.Array:
    """Compute GELU as torch does, in at least float32.

    Uses erf instead of the erfc of jax.nn.gelu, because erfc costs TPUs another pass over all hidden units to compare signs.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = jax.nn.gelu(wide, approximate=True) if use_tanh else 0.5 * wide * (1 + jax.lax.erf(wide * math.sqrt(0.5)))
    return y.astype(x.dtype)


@jax.custom_vjp
def _gated(gate: jax.Array, up: jax.Array) -> jax.Array:
    """Compute silu(gate) * up.

    The gradients are written as products of saved arrays. XLA on CPU fuses their computation with a transpose for the following
    matrix products; with the automatic gradient, the fused loop would compute an exponential for every element.
    """
    return gate * jax.nn.sigmoid(gate) * up


def _gated_forward(gate: jax.Array, up: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    share = jax.nn.sigmoid(gate)
    return gate * share * up, (gate, up, share)


def _gated_backward(saved: tuple[jax.Array, jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    gate, up, share = saved
    return grad * up * share * (1 + gate * (1 - share)), grad * gate * share


_gated.defvjp(_gated_forward, _gated_backward)


def embedding_lookup(table: jax.Array, indices: jax.Array, axis: str, rules: ShardingRules, dtype: jnp.dtype) -> jax.Array:
    """Look up rows of a table [V, D]: [B, T] -> [B, T, D]. If the table is split, each device contributes its own rows.

    As for kernels, the table is gathered in `dtype`, and its gradient is summed over devices in `dtype`. On one device, the
    gradient is summed in the table's own dtype.

    Args:
        table: [V, D].
        indices: [B, T] int32.
        axis: logical axis of the table's rows.
        rules: how tensors are split over the mesh.
        dtype: dtype of activations.
    """
    compute_axis = COMPUTE_AXES[axis]
    mesh_axes = rules.mesh_axes(compute_axis, table.shape[0])

    def lookup_shard(table: jax.Array, rows: jax.Array, indices: jax.Array) -> jax.Array:
        if not mesh_axes:
            return table[indices]
        local = indices - rows[0]
        found = table[jnp.clip(local, 0, len(rows) - 1)]
        return jax.lax.psum(jnp.where(((local >= 0) & (local < len(rows)))[..., None], found, 0), mesh_axes)

    in_axes = ((compute_axis, None), (compute_axis,), ("batch", None))
    out = ((*indices.shape, table.shape[1]), ("batch", None, None))
    gathered = rules.all_gather(table.astype(dtype), axis, None).astype(jnp.promote_types(table.dtype, dtype))
    return rules.shard_map(lookup_shard, in_axes, out)(gathered, jnp.arange(table.shape[0]), indices)
