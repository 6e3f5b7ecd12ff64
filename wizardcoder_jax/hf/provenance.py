"""The provenance of a model: its base model and its license."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import huggingface_hub

from wizardcoder_jax.core.filesystem import exists, read_text

_LICENSES = {  # prefix of hub ids -> license of these published models; source: their model pages
    "bigcode/": "bigcode-openrail-m",
    "WizardLMTeam/WizardCoder-15B": "bigcode-openrail-m",
    "codellama/": "llama2",
    "WizardLMTeam/WizardCoder-Python": "llama2",
    "deepseek-ai/deepseek-coder": "deepseek",
    "Qwen/Qwen2.5-Coder-3B": "qwen-research",
    "Qwen/Qwen2.5-Coder": "apache-2.0",
    "HuggingFaceTB/SmolLM2": "apache-2.0",
}
LICENSE_NOTES = {  # obligations when distributing a fine-tuned model
    "bigcode-openrail-m": "Include the license and its use restrictions (Attachment A) with everything derived from the model.",
    "llama2": "Include the Llama 2 Community License and its attribution notice; its acceptable use policy applies.",
    "deepseek": "Include the DeepSeek License Agreement and its use restrictions (Attachment A).",
    "qwen-research": "Research and other non-commercial use only; include the license, and state that the model was modified.",
    "apache-2.0": "Include the license and its notices, and state that the weights were modified.",
}


class Provenance(NamedTuple):
    """The base model and the license of a model; None where unknown."""

    base_model: str | None  # hub id of the base model
    license: str | None  # Hugging Face's identifier of the license


def read_provenance(model: str, folder: str, config: Mapping[str, Any]) -> Provenance:
    """Read the provenance of a Hugging Face folder from its model card, its config and the licenses of published models.

    Args:
        model: MODEL argument of the user, possibly a hub id.
        folder: path of the folder.
        config: content of the folder's config.json.
    """
    readme = os.path.join(folder, "README.md")
    card = _front_matter(read_text(readme)) if exists(readme) else {}
    named = model if not exists(model) else config.get("_name_or_path") or card.get("base_model")
    base_model = named if isinstance(named, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", named) else None
    license = card.get("license_name") or card.get("license")
    return with_known_license(Provenance(base_model, license if isinstance(license, str) else None))


def with_known_license(provenance: Provenance) -> Provenance:
    """Fill in the license of a published base model if `provenance` has none."""
    known = (license for start, license in _LICENSES.items() if (provenance.base_model or "").startswith(start))
    return provenance if provenance.license else provenance._replace(license=next(known, None))


def _front_matter(text: str) -> dict[str, Any]:
    try:
        return huggingface_hub.ModelCard(text, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # the card is optional, and malformed YAML raises many kinds of errors
        return {}
