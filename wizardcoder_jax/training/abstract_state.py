"""What a run holds between steps, as shapes with their logical axes: how much of it a device has follows for any mesh."""

import functools
from typing import Any, NamedTuple

import jax
from flax import nnx

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.sharding import RULES, Axes, make_mesh
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.training.train_step import abstract_state
from wizardcoder_jax.training.trainable import abstract_model

PARTS = {"trained": "trained", "frozen": "frozen", "opt_state": "optimizer", "ema": "ema"}  # fields of a state -> what they are


class AbstractArray(NamedTuple):
    """An array of a run's state."""

    part: str  # a value of PARTS
    shape: tuple[int, ...]
    axes: Axes  # of the last dims; none where every device has the whole
    item_bytes: int  # of a number

    @property
    def is_stacked(self) -> bool:
        """Whether the first dim is the layer."""
        return 0 < len(self.axes) < len(self.shape)


@functools.lru_cache(maxsize=64)
def state_arrays(arch: ArchConfig, config: TrainConfig) -> tuple[AbstractArray, ...]:
    """All arrays of a run's state but the guard's few numbers. They are the same on any mesh, under any strategy.

    Args:
        arch: of what is trained.
        config: optimizer, adapters, frozen weights.
    """
    rules = RULES["fsdp"]
    state = abstract_state(abstract_model(arch, rules, config), config, make_mesh("1x1"), rules)
    found: list[AbstractArray] = []
    for field, part in PARTS.items():
        for leaf in jax.tree.leaves(getattr(state, field), is_leaf=_is_param):
            axes: Any = leaf.axes if _is_param(leaf) else ()
            found += [AbstractArray(part, array.shape, axes, array.dtype.itemsize) for array in jax.tree.leaves(leaf)]
    return tuple(found)


def _is_param(node: Any) -> bool:
    return isinstance(node, nnx.Param)
