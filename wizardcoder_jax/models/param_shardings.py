"""Shardings of the arrays in a pytree of parameters."""

from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wizardcoder_jax.core.sharding import ShardingRules


def param_shardings(tree: Any, mesh: Mesh, rules: ShardingRules) -> Any:
    """Return the sharding of every array of `tree`.

    Args:
        tree: pytree of arrays or abstract arrays. Each nnx.Param (a parameter or an optimizer moment) is split along its
            logical axes; every other array is replicated.
        mesh: the mesh that the shardings refer to.
        rules: which mesh axes split each logical axis.
    """

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Param):
            return NamedSharding(mesh, PartitionSpec())
        return jax.tree.map(lambda array: rules.sharding(mesh, array.shape, leaf.axes), leaf)

    return jax.tree.map(place, tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))
