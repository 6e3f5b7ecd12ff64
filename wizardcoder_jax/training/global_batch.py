"""Batches on their way to the devices: each process reads the rows of its own devices, and no others."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.training.objectives.cross_entropy import Batch

Rows = dict[str, np.ndarray]


def put_batch(
    read: Callable[[np.ndarray], Rows], batch_size: int, accumulation: int, mesh: Mesh, rules: ShardingRules
) -> Batch:
    """A global batch as device arrays [A, B/A, ...], each microbatch spread over all devices that split sequences.

    Args:
        read: the rows at places [n] (int64, ascending) of the batch: each of `Batch`'s fields as [n, ...].
        batch_size: B, over all processes.
        accumulation: A, microbatches; divides B.
        mesh: the devices.
        rules: which of its axes split sequences.
    """
    places = np.arange(batch_size).reshape(accumulation, -1)
    sharding = NamedSharding(mesh, PartitionSpec(None, rules.batch))
    own = sharding.addressable_devices_indices_map(places.shape).values()
    wanted = np.unique(np.concatenate([places[index].ravel() for index in own]))
    rows = read(wanted)

    def put(array: np.ndarray) -> jax.Array:
        shape = (*places.shape, *array.shape[1:])
        part = lambda index: array[np.searchsorted(wanted, places[index[:2]])][(..., *index[2:])]  # noqa: E731
        return jax.make_array_from_callback(shape, sharding, part)

    return Batch(**{name: put(rows[name]) for name in Batch._fields})
