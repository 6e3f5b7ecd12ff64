"""Which device holds what: the mesh, and the one table from logical axes to mesh axes.

Tensors name their dims by logical axes ("embed", "heads", ...); a strategy says which mesh axis splits each. A dim that its
mesh axes do not divide is split over fewer of them, at the end over none (a single key/value head is replicated).
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
    """Logical axis -> the mesh axes that split it."""

    batch: tuple[str, ...]  # sequences
    rows: tuple[str, ...] = MESH_AXES  # sequences of a cache whose heads are not split (models/kv_cache.py)
    sequence: tuple[str, ...] = ()  # places of a sequence, between blocks
    embed: tuple[str, ...] = ()  # rows of every kernel
    vocab: tuple[str, ...] = ()  # rows of the embedding and of the head
    positions: tuple[str, ...] = ()  # rows of the table of positions
    logits: tuple[str, ...] = ()  # the vocabulary where it is computed with: of logits, and of the tables beside them
    heads: tuple[str, ...] = ()  # query heads
    kv_heads: tuple[str, ...] = ()  # key/value heads
    mlp: tuple[str, ...] = ()  # hidden units of the MLP

    def spec(self, mesh_shape: dict[str, int], shape: tuple[int, ...], axes: Axes) -> PartitionSpec:
        """The split of an array of `shape` whose last dims are `axes` (leading dims, e.g. layers, stay whole).

        Raises:
            ValueError: two dims would be split over one mesh axis.
        """
        named: Axes = (None,) * (len(shape) - len(axes)) + axes
        parts = [self._split(mesh_shape, dim, axis) for dim, axis in zip(shape, named, strict=True)]
        used = [name for part in parts for name in part]
        if len(used) != len(set(used)):
            raise ValueError(f"axes {axes} use a mesh axis twice: {parts}")
        return PartitionSpec(*(part or None for part in parts))

    def sharding(self, mesh: Mesh, shape: tuple[int, ...], axes: Axes) -> NamedSharding:
        """`spec` on a mesh of devices."""
        return NamedSharding(mesh, self.spec(dict(mesh.shape), shape, axes))

    def _split(self, mesh_shape: dict[str, int], dim: int, axis: str | None) -> tuple[str, ...]:
        names = getattr(self, axis) if axis else ()
        while names and dim % math.prod(mesh_shape[name] for name in names):
            names = names[:-1]
        return tuple(name for name in names if mesh_shape[name] > 1)

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """`x`, split as the rules say over the mesh that `jax.set_mesh` made current; unchanged where there is none."""
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1:
            return x
        return jax.lax.with_sharding_constraint(x, self.spec(dict(mesh.shape), x.shape, axes))

    def gathered(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """A parameter of `axes` brought together as far as it is computed with: split as `HELD` says instead."""
        held = self.constrain(x, *axes)  # what was made of it, e.g. by a cast, was made of parts
        return self.constrain(held, *(HELD.get(axis, axis) if axis else None for axis in axes))

    def names(self, axis: str | None, dim: int) -> tuple[str, ...]:
        """Over which axes of the current mesh a dim of size `dim` is split."""
        mesh = jax.sharding.get_abstract_mesh()
        return () if mesh.empty else self._split(dict(mesh.shape), dim, axis)

    def per_device(
        self, function: Callable[..., Any], in_axes: tuple[Axes, ...], out: Any, check_vma: bool = True
    ) -> Callable[..., Any]:
        """`function` as every device runs it on its part of the arguments; only what it says itself is communicated.

        Args:
            function: of arrays; where there is no mesh, of the whole ones.
            in_axes: the logical axes of every argument.
            out: (shape of the whole, logical axes) of the result, or a tuple of such pairs.
            check_vma: whether JAX checks that what is said to be alike on devices is; kernels cannot be checked.
        """

        def run(*args: jax.Array) -> Any:
            mesh = jax.sharding.get_abstract_mesh()
            if mesh.empty or mesh.size == 1:
                return function(*args)
            sizes = dict(mesh.shape)
            in_specs = tuple(self.spec(sizes, array.shape, axes) for array, axes in zip(args, in_axes, strict=True))
            is_pair = lambda node: isinstance(node[0][0], int)  # noqa: E731
            out_specs = jax.tree.map(lambda pair: self.spec(sizes, *pair), out, is_leaf=is_pair)
            return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma)(*args)

        return run


# Axes along which parameters are split to be held, and the split to compute with.
HELD = {"embed": None, "vocab": "logits", "positions": None}

RULES: dict[str, ShardingRules] = {
    # Everything is split over every device: weights are gathered layer by layer, each device has its own sequences.
    "fsdp": ShardingRules(batch=MESH_AXES, embed=MESH_AXES, vocab=MESH_AXES, positions=MESH_AXES),
    # Sequences and weight rows over "data"; heads, MLP units and vocabulary over "model", and places where none of them is.
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
    # For sampling: weights are split over "model" alone, since a step reads them all and would wait for each to be gathered.
    "tensor": ShardingRules(
        batch=("data",), vocab=("model",), logits=("model",), heads=("model",), kv_heads=("model",), mlp=("model",)
    ),
}


def device_kind() -> str:
    """What is traced now is for devices of this kind: the current mesh's, which need not exist when compiling ahead."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.devices()[0].device_kind if device is None else device.device_kind


def for_cpu() -> bool:
    """Whether what is traced now is for a CPU."""
    return device_kind() == "cpu"


def over_all_devices(x: jax.Array, dim: int) -> jax.Array:
    """`x` with one dim split over all devices of the current mesh, as far as they divide it; unchanged where there is none."""
    return ShardingRules(batch=MESH_AXES).constrain(x, *("batch" if i == dim else None for i in range(x.ndim)))


def bytes_per_device(tree: Any) -> int:
    """Bytes that each device holds of arrays, or of shapes, of which the shardings are known."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def sizes_of_mesh(mesh: str) -> tuple[int, int]:
    """Sizes of MESH_AXES that DATAxMODEL names.

    Raises:
        InputError: it is malformed.
    """
    data, _, model = mesh.partition("x")
    if not all(size.isascii() and size.isdigit() and int(size) for size in (data, model)):
        raise InputError(f"mesh {mesh!r} is not of the form DATAxMODEL, e.g. 4x8")
    return int(data), int(model)


def mesh_over(devices: Sequence[Any], mesh: str) -> Mesh:
    """The mesh DATAxMODEL of so many devices."""
    return jax.make_mesh(sizes_of_mesh(mesh), MESH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def make_mesh(mesh: str) -> Mesh:
    """The mesh that `--mesh DATAxMODEL` names, over all devices of this run (over the first one for 1x1).

    Raises:
        InputError: `mesh` is malformed, or needs another number of devices than there are.
    """
    devices, needed = jax.devices(), math.prod(sizes_of_mesh(mesh))
    if needed != len(devices) and needed > 1:
        kind = devices[0].platform
        hint = f"; to try it on CPU set XLA_FLAGS=--xla_force_host_platform_device_count={needed}" if kind == "cpu" else ""
        raise InputError(f"mesh {mesh} needs {needed} devices, this run has {len(devices)} ({kind}){hint}")
    return mesh_over(devices[:needed], mesh)


def batch_shards(mesh: Mesh, rules: ShardingRules) -> int:
    """Over how many devices the sequences of a batch are split."""
    return math.prod(mesh.shape[name] for name in rules.batch)
