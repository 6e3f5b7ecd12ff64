"""The device mesh, and the table that maps the logical axes of tensors to mesh axes.

The dims of a tensor have logical axes ("embed", "heads", ...), and a sharding strategy defines over which mesh axes each
logical axis is split. If the mesh axes do not divide the size of a dim, it is split over fewer mesh axes or not at all (a
single key/value head is replicated).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from wizardcoder_jax.core.errors import InputError

MESH_AXES = ("data", "model")
Axes = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingRules:
    """A sharding strategy: for each logical axis, the mesh axes over which it is split."""

    batch: tuple[str, ...]  # mesh axes for the sequences of a batch
    cache_batch: tuple[str, ...] = MESH_AXES  # mesh axes for the sequences of a KV cache whose heads are not split
    sequence: tuple[str, ...] = ()  # mesh axes for the positions of a sequence, between blocks
    embed: tuple[str, ...] = ()  # mesh axes for the embedding dim of every kernel
    vocab: tuple[str, ...] = ()  # mesh axes for the rows of the token embedding and of the output head
    positions: tuple[str, ...] = ()  # mesh axes for the rows of the position embedding
    logits: tuple[str, ...] = ()  # mesh axes for the vocabulary dim in computation: of logits, and of the gathered tables
    heads: tuple[str, ...] = ()  # mesh axes for the query heads
    kv_heads: tuple[str, ...] = ()  # mesh axes for the key/value heads
    mlp: tuple[str, ...] = ()  # mesh axes for the hidden units of the MLP

    def spec(self, mesh_shape: dict[str, int], shape: tuple[int, ...], axes: Axes) -> PartitionSpec:
        """Return the PartitionSpec of an array.

        Args:
            mesh_shape: mesh axis -> size.
            shape: the array's shape.
            axes: logical axes of the array's last dims; leading dims, e.g. layers, are not split.

        Raises:
            ValueError: two dims would be split over the same mesh axis.
        """
        all_axes: Axes = (None,) * (len(shape) - len(axes)) + axes
        parts = [self._split(mesh_shape, dim, axis) for dim, axis in zip(shape, all_axes, strict=True)]
        used = [name for part in parts for name in part]
        if len(used) != len(set(used)):
            raise ValueError(f"logical axes {axes} would use a mesh axis twice: {parts}")
        return PartitionSpec(*(part or None for part in parts))

    def sharding(self, mesh: Mesh, shape: tuple[int, ...], axes: Axes) -> NamedSharding:
        """Return `spec` as a sharding over the devices of `mesh`."""
        return NamedSharding(mesh, self.spec(dict(mesh.shape), shape, axes))

    def _split(self, mesh_shape: dict[str, int], dim: int, axis: str | None) -> tuple[str, ...]:
        names = getattr(self, axis) if axis else ()
        while names and dim % math.prod(mesh_shape[name] for name in names):
            names = names[:-1]
        return tuple(name for name in names if mesh_shape[name] > 1)

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """Constrain the sharding of `x` on the current mesh (`jax.set_mesh`); return `x` unchanged without a mesh."""
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1:
            return x
        return jax.lax.with_sharding_constraint(x, self.spec(dict(mesh.shape), x.shape, axes))

    def all_gather(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """Gather a stored parameter for computation.

        Args:
            x: the parameter, or the result of an elementwise operation on it, e.g. a cast.
            axes: logical axes of `x`.

        Returns:
            `x`, split only along the logical axes to which COMPUTE_AXES maps `axes`.
        """
        stored = self.constrain(x, *axes)  # a cast, for example, happens before the gather, on each shard
        return self.constrain(stored, *(COMPUTE_AXES.get(axis, axis) if axis else None for axis in axes))

    def mesh_axes(self, axis: str | None, dim: int) -> tuple[str, ...]:
        """Return the axes of the current mesh over which a dim of size `dim` is split."""
        mesh = jax.sharding.get_abstract_mesh()
        return () if mesh.empty else self._split(dict(mesh.shape), dim, axis)

    def shard_map(
        self, function: Callable[..., Any], in_axes: tuple[Axes, ...], out: Any, check_vma: bool = True
    ) -> Callable[..., Any]:
        """Map `function` over the shards of its arguments on the current mesh, as `jax.shard_map` does, by logical axes.

        Args:
            function: function of arrays; without a mesh it is called with the complete arrays.
            in_axes: logical axes of each argument.
            out: (global shape, logical axes) of the result, or a tuple of such pairs.
            check_vma: whether JAX checks that results are replicated as declared; it cannot check Pallas and cuDNN kernels.
        """

        def run(*args: jax.Array) -> Any:
            mesh = jax.sharding.get_abstract_mesh()
            if mesh.empty or mesh.size == 1:
                return function(*args)
            mesh_shape = dict(mesh.shape)
            in_specs = tuple(self.spec(mesh_shape, array.shape, axes) for array, axes in zip(args, in_axes, strict=True))
            is_pair = lambda node: isinstance(node[0][0], int)  # noqa: E731
            out_specs = jax.tree.map(lambda pair: self.spec(mesh_shape, *pair), out, is_leaf=is_pair)
            return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma)(*args)

        return run


# Logical axes that split only stored parameters -> the logical axis of the same dim in computation (None: not split).
COMPUTE_AXES = {"embed": None, "vocab": "logits", "positions": None}

RULES: dict[str, ShardingRules] = {
    # Everything is split over all devices: each device has its own sequences, and weights are gathered layer by layer.
    "fsdp": ShardingRules(batch=MESH_AXES, embed=MESH_AXES, vocab=MESH_AXES, positions=MESH_AXES),
    # Sequences and weight rows are split over "data"; heads, MLP units and the vocabulary over "model", and so are positions
    # of the residual stream between blocks (sequence parallelism).
    "fsdp_tensor": ShardingRules(
        batch=("data",),
        sequence=("model",),
        embed=("data",),
        vocab=("model",),
        positions=("data",),
        logits=("model",),
        heads=("model",),
        kv_heads=("model",),
        mlp=("model",),
    ),
    # For sampling. Weights are split over "model" only: a decode step reads all of them and would wait for every gather.
    "tensor": ShardingRules(
        batch=("data",), vocab=("model",), logits=("model",), heads=("model",), kv_heads=("model",), mlp=("model",)
    ),
}


def target_device_kind() -> str:
    """Return the device kind for which JAX is tracing. The devices of the current mesh may be absent from this machine."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.devices()[0].device_kind if device is None else device.device_kind


def is_cpu_target() -> bool:
    """Return whether JAX is tracing for a CPU."""
    return target_device_kind() == "cpu"


def shard_over_all_devices(x: jax.Array, dim: int) -> jax.Array:
    """Split one dim of `x` over as many devices of the current mesh as divide it. Without a mesh, return `x`."""
    return ShardingRules(batch=MESH_AXES).constrain(x, *("batch" if i == dim else None for i in range(x.ndim)))


def bytes_per_device(tree: Any) -> int:
    """Return the number of bytes per device of a pytree of arrays, or of shapes with shardings."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def parse_mesh(mesh: str) -> tuple[int, int]:
    """Parse DATAxMODEL into the sizes of MESH_AXES.

    Raises:
        InputError: `mesh` does not have this form.
    """
    data, _, model = mesh.partition("x")
    if not all(size.isascii() and size.isdigit() and int(size) for size in (data, model)):
        raise InputError(f"mesh {mesh!r} is not of the form DATAxMODEL, e.g. 4x8")
    return int(data), int(model)


def mesh_from_devices(devices: Sequence[Any], mesh: str) -> Mesh:
    """Build the mesh DATAxMODEL from `devices`; there must be DATA * MODEL devices."""
    return jax.make_mesh(parse_mesh(mesh), MESH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def make_mesh(mesh: str) -> Mesh:
    """Build the mesh of `--mesh DATAxMODEL` from all devices of this run; 1x1 uses the first device.

    Raises:
        InputError: `mesh` is malformed, or this run has a different number of devices.
    """
    devices, needed = jax.devices(), math.prod(parse_mesh(mesh))
    if needed != len(devices) and needed > 1:
        kind = devices[0].platform
        hint = f"; to try it on CPU set XLA_FLAGS=--xla_force_host_platform_device_count={needed}" if kind == "cpu" else ""
        raise InputError(f"mesh {mesh} needs {needed} devices, this run has {len(devices)} ({kind}){hint}")
    return mesh_from_devices(devices[:needed], mesh)


def num_batch_shards(mesh: Mesh, rules: ShardingRules) -> int:
    """Return the number of devices over which the sequences of a batch are split."""
    return math.prod(mesh.shape[name] for name in rules.batch)
