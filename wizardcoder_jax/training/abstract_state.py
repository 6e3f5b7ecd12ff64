"""The shapes and logical axes of a run's state, from which a device's share follows for any mesh."""

import functools
from typing import Any, NamedTuple

import jax
from flax import nnx

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.sharding import RULES, Axes, make_mesh
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.training.train_step import abstract_state
from wizardcoder_jax.training.trainable import abstract_model

COMPONENTS = {"trained": "trained", "frozen": "frozen", "opt_state": "optimizer", "ema": "ema"}  # field of TrainState -> name


class AbstractArray(NamedTuple):
    """An array of a run's state."""

    component: str  # a value of COMPONENTS
    shape: tuple[int, ...]
    axes: Axes  # of the last dims; empty if every device has the whole array
    item_bytes: int  # bytes of one element

    @property
    def is_stacked(self) -> bool:
        """Return whether the first dim is the layer."""
        return 0 < len(self.axes) < len(self.shape)


@functools.lru_cache(maxsize=64)
def state_arrays(arch: ArchConfig, config: TrainConfig) -> tuple[AbstractArray, ...]:
    """Return all arrays of a run's state except the few scalars of step skipping. They do not depend on mesh or strategy.

    Args:
        arch: of the trained model.
        config: optimizer, adapters, frozen weights.
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
