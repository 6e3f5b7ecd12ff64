"""The metadata of a checkpoint: its model, and a checksum of each of its arrays."""

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
    tokenizer: dict[str, str]  # file name -> text, as in a Hugging Face folder
    base_model: str | None = None  # hub id of the model it was fine-tuned from
    license: str | None = None  # of the base model
    checksums: dict[str, str] | None = None  # of the Hugging Face tensors it was converted from; None after training
    lora: dict[str, Any] | None = None  # settings of its adapters, if its params are adapters
    frozen: str | None = None  # checksum of the weights in RUN/frozen, which are the same at every step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything known of a checkpoint without reading an array."""

    step: int
    card: CheckpointCard | None  # None for frozen weights, which belong to many steps
    arrays: dict[str, ArrayChecksums]  # by item

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON, with a checksum of itself."""
        fields = dataclasses.asdict(self)
        return {**fields, "sha256": _sha256(fields)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Manifest":
        """Return the manifest that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: the content has been changed.
        """
        fields = dict(content)
        if fields.pop("sha256") != _sha256(fields):
            raise ValueError("its checksum does not match its content")
        card = fields["card"]
        card = None if card is None else CheckpointCard(**{**card, "arch": ArchConfig(**card["arch"])})
        return cls(**{**fields, "card": card})


def combined_checksum(arrays: ArrayChecksums) -> str:
    """Return one checksum of many arrays."""
    return _sha256(arrays)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
