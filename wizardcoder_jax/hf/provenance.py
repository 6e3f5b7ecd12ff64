"""What a model descends from: the name of its base and the licence that comes with it."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import huggingface_hub

from wizardcoder_jax.core.filesystem import exists, read_text

_LICENSES = {  # of the published bases, by the beginning of their hub ids: what their model pages say
    "bigcode/": "bigcode-openrail-m",
    "WizardLMTeam/WizardCoder-15B": "bigcode-openrail-m",
    "codellama/": "llama2",
    "WizardLMTeam/WizardCoder-Python": "llama2",
    "deepseek-ai/deepseek-coder": "deepseek",
    "Qwen/Qwen2.5-Coder-3B": "qwen-research",
    "Qwen/Qwen2.5-Coder": "apache-2.0",
    "HuggingFaceTB/SmolLM2": "apache-2.0",
}
LICENSE_NOTES = {  # what each asks of those who pass on a fine-tuned model
    "bigcode-openrail-m": "Pass on the licence and its use restrictions (Attachment A) with all that derives from the model.",
    "llama2": "Pass on the Llama 2 Community License and its attribution notice; its acceptable use policy applies.",
    "deepseek": "Pass on the DeepSeek License Agreement and its use restrictions (Attachment A).",
    "qwen-research": "Research and other non-commercial use only; pass on the licence, and state that the model was changed.",
    "apache-2.0": "Pass on the licence and its notices, and state that the weights were changed.",
}


class Provenance(NamedTuple):
    """None where it is not known."""

    base_model: str | None  # hub id
    license: str | None  # Hugging Face's name of it


def read_provenance(model: str, folder: str, config: Mapping[str, Any]) -> Provenance:
    """The lineage of a Hugging Face folder: what its model card says, and what is known of the published bases.

    Args:
        model: what the user called it, perhaps a hub id.
        folder: where its files are.
        config: its config.json.
    """
    readme = os.path.join(folder, "README.md")
    card = _front_matter(read_text(readme)) if exists(readme) else {}
    named = model if not exists(model) else config.get("_name_or_path") or card.get("base_model")
    base_model = named if isinstance(named, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", named) else None
    license = card.get("license_name") or card.get("license")
    return with_known_license(Provenance(base_model, license if isinstance(license, str) else None))


def with_known_license(lineage: Provenance) -> Provenance:
    """The same, with the licence of a published base where none is named."""
    known = (license for start, license in _LICENSES.items() if (lineage.base_model or "").startswith(start))
    return lineage if lineage.license else lineage._replace(license=next(known, None))


def _front_matter(text: str) -> dict[str, Any]:
    try:
        return huggingface_hub.ModelCard(text, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # a model card is decoration: a malformed one (YAML's own errors) tells nothing
        return {}
