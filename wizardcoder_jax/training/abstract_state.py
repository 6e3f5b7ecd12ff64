"""Shapes and logical axes of the training state, from which the bytes per device can be computed for any mesh."""

import functools
from typing import Any, NamedTuple

import jax
from flax import nnx

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.sharding import RULES, Axes, make_mesh
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.training.train_step import abstract_state
from wizardcoder_jax.training.trainable import abstract_model

# Field of TrainState -> name of that component of the state.
COMPONENTS = {"trained": "trained", "frozen": "frozen", "opt_state": "optimizer", "ema": "ema"}


class AbstractArray(NamedTuple):
    """The shape, size and sharding of one array of the training state."""

    component: str  # name of the state's component that contains the array: a value of COMPONENTS
    shape: tuple[int, ...]
    axes: Axes  # logical axes of the last dims; empty if the array is replicated
    item_bytes: int  # bytes per element

    @property
    def is_stacked(self) -> bool:
        """Return whether the first dim is the layer dim."""
        return 0 < len(self.axes) < len(self.shape)


@functools.lru_cache(maxsize=64)
def state_arrays(arch: ArchConfig, config: TrainConfig) -> tuple[AbstractArray, ...]:
    """Return all arrays of the training state except the few scalars of step skipping. The result does not depend on the mesh.

    Args:
        arch: the architecture of the model.
        config: the settings of the optimizer, adapters and frozen weights.
    """
    rules = RULES["fsdp"]
    state = abstract_state(abstract_model(arch, rules, config), config, make_mesh("1x1"), rules)
    found: list[AbstractArray] = []
    for field, component in COMPONENTS.items():
        for leaf in jax.tree.leaves(getattr(state, field), is_leaf=_is_param):
            axes: Any = leaf.axes if _is_param(leaf) else ()
            found += [AbstractArray(component, array.shape, axes, array.dtype.itemsize) for array in jax.tree.leaves(leaf)]
    return tuple(found)


def _is_param(node: Any) -> bool:
    return isinstance(node, nnx.Param)
