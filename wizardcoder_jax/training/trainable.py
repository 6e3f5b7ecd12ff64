"""Splits a model into trained and frozen weights. Only trained weights have moments and are saved in each checkpoint."""

import dataclasses
import difflib
import fnmatch
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.lora import ADAPTER_NAMES, abstract_lora_transformer, base_dtype
from wizardcoder_jax.models.transformer import Transformer, abstract_transformer
from wizardcoder_jax.training.optimizers.layerwise_update import STACKED_PREFIX

Params = dict[str, nnx.Param]  # weights by dotted name, e.g. "blocks.mlp.up.kernel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """The split of a model's weights into trained and frozen ones."""

    names: tuple[str, ...]  # names of all weights, in the order of the pytree
    trained: frozenset[str]
    treedef: Any  # structure of the model, with each nnx.Param as one leaf
    freeze_layers: int  # number of layers, counted from the first, that stay unchanged
    rules: ShardingRules

    @classmethod
    def of(cls, model: Transformer, config: TrainConfig) -> "Partition":
        """Return the partition of `model`: its adapters are trained if it has any, otherwise all weights that are not frozen.

        Raises:
            InputError: a pattern in `freeze` matches no weight, or no weight is left to train.
        """
        found, treedef = _params(model)
        names = tuple(found)
        if config.lora.rank is not None:
            trained = frozenset(name for name in names if name.rpartition(".")[2] in ADAPTER_NAMES)
        else:
            trained = frozenset(names) - frozenset(_frozen(names, config.freeze))
        if not trained:
            raise InputError(f"freeze {' '.join(config.freeze)} leaves no weight to train; remove a pattern")
        if config.freeze_layers >= model.arch.num_layers and all(name.startswith(STACKED_PREFIX) for name in trained):
            raise InputError(
                f"freeze_layers {config.freeze_layers} freezes all {model.arch.num_layers} layers and leaves no weight to "
                "train; lower it"
            )
        return cls(names=names, trained=trained, treedef=treedef, freeze_layers=config.freeze_layers, rules=model.rules)

    def split(self, model: Transformer) -> tuple[Params, Params]:
        """Split a model with these weight names into its trained and its frozen weights."""
        params, _ = _params(model)
        trained = {name: param for name, param in params.items() if name in self.trained}
        return trained, {name: param for name, param in params.items() if name not in self.trained}

    def join(self, trained: Params, frozen: Params) -> Transformer:
        """Return the model with these weights; the inverse of `split`."""
        return jax.tree.unflatten(self.treedef, [(trained if name in trained else frozen)[name] for name in self.names])

    def zero_frozen_layers(self, updates: Params) -> Params:
        """Return the gradients or updates, with those of frozen layers set to zero."""
        if not self.freeze_layers:
            return updates

        def zero_first_layers(array: jax.Array) -> jax.Array:
            is_trained = jnp.arange(array.shape[0]) >= self.freeze_layers
            return jnp.where(is_trained.reshape(-1, *(1,) * (array.ndim - 1)), array, 0)

        return {
            name: jax.tree.map(zero_first_layers, param) if name.startswith(STACKED_PREFIX) else param
            for name, param in updates.items()
        }


def _params(model: Transformer) -> tuple[Params, Any]:
    leaves, treedef = jax.tree_util.tree_flatten_with_path(model, is_leaf=lambda node: isinstance(node, nnx.Param))
    return {jax.tree_util.keystr(path, simple=True, separator="."): param for path, param in leaves}, treedef


def _frozen(names: tuple[str, ...], patterns: Iterable[str]) -> list[str]:
    frozen = []
    for pattern in patterns:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
            raise InputError(f"freeze {pattern!r} matches no weight of this model; examples of its weights: {', '.join(near)}")
        frozen += matches
    return frozen


def abstract_model(arch: ArchConfig, rules: ShardingRules, config: TrainConfig) -> Transformer:
    """Return the shapes of the model to train, including its adapters."""
    if config.lora.rank is None:
        return abstract_transformer(arch, rules)
    return abstract_lora_transformer(arch, rules, config.lora, base_dtype(config.lora))
