"""The metadata of a checkpoint: a description of its model, and a checksum of each array."""

import dataclasses
import hashlib
import json
from typing import Any

from wizardcoder_jax.models.arch import ArchConfig

ArrayChecksums = dict[str, str]  # name of an array -> dtype, shape and checksum (checkpoints/fingerprint.py)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointCard:
    """The description of a checkpoint's model."""

    arch: ArchConfig
    tokenizer: dict[str, str]  # file name -> content of the tokenizer's files, as in a Hugging Face folder
    base_model: str | None = None  # hub id of the model that was fine-tuned
    license: str | None = None  # license of the base model
    checksums: dict[str, str] | None = None  # checksums of the converted Hugging Face tensors; None after training
    lora: dict[str, Any] | None = None  # LoRA settings if the item "params" contains adapters
    frozen: str | None = None  # checksum of the frozen weights, which are stored in RUN/frozen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of a checkpoint's metadata file: everything except the arrays."""

    step: int
    card: CheckpointCard | None  # None in the manifest of frozen weights, which belong to several steps
    arrays: dict[str, ArrayChecksums]  # checksums of the arrays in each item

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as a JSON object that includes a checksum of its own content."""
        fields = dataclasses.asdict(self)
        return {**fields, "sha256": _sha256(fields)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Manifest":
        """Return the manifest from the JSON object that `to_json` returned.

        Raises:
            ValueError, KeyError, TypeError: the content is malformed or does not match its checksum.
        """
        fields = dict(content)
        if fields.pop("sha256") != _sha256(fields):
            raise ValueError("the checksum of the manifest does not match its content")
        card = fields["card"]
        card = None if card is None else CheckpointCard(**{**card, "arch": ArchConfig(**card["arch"])})
        return cls(**{**fields, "card": card})


def combined_checksum(arrays: ArrayChecksums) -> str:
    """Combine the checksums of several arrays into one."""
    return _sha256(arrays)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
