"""Builds each batch as global JAX arrays; a process reads only the rows that its own devices need."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.training.objectives.objective import Batch

Rows = dict[str, np.ndarray]


def put_batch(
    read: Callable[[np.ndarray], Rows],
    batch_size: int,
    accumulation: int,
    mesh: Mesh,
    rules: ShardingRules,
    batch_type: type[Any] = Batch,
) -> Any:
    """Return a global batch as device arrays [A, B/A, ...], with dim 1, the sequences, sharded over the batch axes of the mesh.

    Args:
        read: returns the rows at given positions of the batch (int64 [n], ascending): [n, ...] for each field of `batch_type`.
        batch_size: B, the number of sequences over all processes.
        accumulation: A, the number of microbatches; must divide B.
        mesh: the devices.
        rules: the sharding rules, which name the batch axes of the mesh.
        batch_type: the NamedTuple to return, which depends on the objective.
    """
    positions = np.arange(batch_size).reshape(accumulation, -1)
    sharding = NamedSharding(mesh, PartitionSpec(None, rules.batch))
    local = sharding.addressable_devices_indices_map(positions.shape).values()
    needed = np.unique(np.concatenate([positions[index].ravel() for index in local]))
    rows = read(needed)

    def put(array: np.ndarray) -> jax.Array:
        shape = (*positions.shape, *array.shape[1:])
        shard = lambda index: array[np.searchsorted(needed, positions[index[:2]])][(..., *index[2:])]  # noqa: E731
        return jax.make_array_from_callback(shape, sharding, shard)

    return batch_type(**{name: put(rows[name]) for name in batch_type._fields})
