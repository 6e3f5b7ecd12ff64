"""ModelFamily, with which each model family declares its config.json keys, tensors and published models."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields
from wizardcoder_jax.models.families.weight_patterns import TensorMapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """A family of models: those with the same `model_type` in config.json.

    Each family is defined as `FAMILY` in its own module of this package, where the registry finds it.
    """

    model_type: str
    transformers_class: str  # name of the class in transformers, for "architectures" in config.json
    shared_fields: Mapping[str, Any]  # ArchConfig fields with the same value in all models of the family
    read_config: Callable[[ConfigFields], dict[str, Any]]  # reads the other ArchConfig fields, except vocab_size and ids
    write_config: Callable[[ArchConfig], dict[str, Any]]  # the inverse of read_config: returns keys of config.json
    tensor_mappings: Sequence[TensorMapping]  # mappings in the order in which export writes the tensors
    # Hub id -> keys of the published model's config.json that differ from the family's defaults. They allow planning a run
    # without access to the hub and without weights. Source: the models' config.json on huggingface.co.
    published_configs: Mapping[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def arch_fields(self) -> dict[str, Any]:
        """ArchConfig fields that the family determines."""
        return {"family": self.model_type, **self.shared_fields}
