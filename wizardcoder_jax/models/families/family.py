"""The definition of a model family."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields
from wizardcoder_jax.models.families.weight_patterns import TensorMapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """The models that share a `model_type` in config.json.

    A module of this package defines one as `FAMILY`, and the registry finds it there.
    """

    model_type: str
    transformers_class: str  # for "architectures" in config.json
    shared_fields: Mapping[str, Any]  # fields of ArchConfig that are the same for all models of the family
    read_config: Callable[[ConfigFields], dict[str, Any]]  # returns the other fields, except those that all families share
    write_config: Callable[[ArchConfig], dict[str, Any]]  # the inverse: keys of config.json
    tensor_mappings: Sequence[TensorMapping]  # in the order in which export writes the tensors
    # Hub id -> keys of the published model's config.json, where they differ from the family's defaults. With it a run can be
    # planned without the hub and without weights. Source: the models' config.json on huggingface.co.
    published_configs: Mapping[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def arch_fields(self) -> dict[str, Any]:
        """The fields of ArchConfig that follow from the family."""
        return {"family": self.model_type, **self.shared_fields}
