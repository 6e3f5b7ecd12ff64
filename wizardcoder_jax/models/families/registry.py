"""The registry of model families by `model_type`: config.json reading and writing, tensor mappings, published models."""

import importlib
import logging
import pkgutil
from collections.abc import Iterator
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.models import families
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.config_fields import ConfigFields
from wizardcoder_jax.models.families.family import ModelFamily
from wizardcoder_jax.models.families.weight_patterns import TIED_HEAD, TensorMapping

logger = logging.getLogger(__name__)


def _find_families() -> Iterator[ModelFamily]:
    """Yield the `FAMILY` of every module in this package that defines one."""
    for module in pkgutil.iter_modules(families.__path__):
        family = getattr(importlib.import_module(f"{families.__name__}.{module.name}"), "FAMILY", None)
        if isinstance(family, ModelFamily):
            yield family


FAMILIES: dict[str, ModelFamily] = {family.model_type: family for family in _find_families()}
PUBLISHED_CONFIGS: dict[str, dict[str, Any]] = {  # hub id -> keys of config.json
    hub_id: {"model_type": family.model_type, **config}
    for family in FAMILIES.values()
    for hub_id, config in family.published_configs.items()
}


def family_of(model_type: object, location: str) -> ModelFamily:
    """Return the family with this `model_type`.

    Args:
        model_type: value from config.json.
        location: name of the file, for the error message.

    Raises:
        InputError: the family is not supported.
    """
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise InputError(f"{location}: unknown architecture model_type={model_type!r}; known are {', '.join(sorted(FAMILIES))}")
    return family


def read_arch(config: dict[str, Any], location: str) -> ArchConfig:
    """Return the architecture that a config.json describes, and log its unknown keys that do not affect the model.

    Args:
        config: the parsed file.
        location: name of the file, for messages.

    Raises:
        InputError: the family is unknown, a key is missing, a value has the wrong type, or a setting changes the model's
            computation in a way that we do not support.
    """
    family = family_of(config.get("model_type"), location)
    fields = ConfigFields(config, location)
    fields.require("scale_attn_weights", True)  # a GPTBigCode key that some files of other families also contain
    read = {
        **family.arch_fields,
        **family.read_config(fields),
        "vocab_size": fields.count("vocab_size"),
        "bos_id": fields.token_id("bos_token_id"),
        "eos_id": fields.token_id("eos_token_id"),
    }
    if ignored := fields.check_unread():
        more = f" and {len(ignored) - 20} more" if len(ignored) > 20 else ""
        logger.info("%s: ignored unknown keys that do not affect the model: %s%s", location, ", ".join(ignored[:20]), more)
    try:
        return ArchConfig(**read)
    except ValueError as error:
        raise fields.error(str(error)) from error


def write_config(arch: ArchConfig, dtype: str) -> dict[str, Any]:
    """Return the config.json of `arch` with weights of `dtype`, for transformers 4 and 5."""
    family = FAMILIES[arch.family]
    shared = {
        "architectures": [family.transformers_class],
        "model_type": arch.family,
        "vocab_size": arch.vocab_size,
        "tie_word_embeddings": arch.tie_embeddings,
        "bos_token_id": arch.bos_id,
        "eos_token_id": arch.eos_id,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
    }
    return shared | family.write_config(arch)


def tensor_mappings(arch: ArchConfig) -> list[TensorMapping]:
    """Return the tensor mappings of `arch`, without a tied output head and without biases that the model lacks."""

    def is_present(mapping: TensorMapping) -> bool:
        if mapping.hf_name == TIED_HEAD:
            return not arch.tie_embeddings
        param = mapping.params[0]
        return arch.bias != "none" or not param.endswith(".bias") or "norm" in param

    return [mapping for mapping in FAMILIES[arch.family].tensor_mappings if is_present(mapping)]


def published_arch(hub_id: str) -> ArchConfig | None:
    """Return the architecture of a published model, e.g. "bigcode/starcoder"; None if its config is not listed."""
    config = PUBLISHED_CONFIGS.get(hub_id)
    return None if config is None else read_arch(config, hub_id)
