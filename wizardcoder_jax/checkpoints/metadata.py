"""What a checkpoint says of itself: its model, and a checksum of each of its arrays."""

import dataclasses
import hashlib
import json
from typing import Any

from wizardcoder_jax.models.arch import ArchConfig

ArrayChecksums = dict[str, str]  # name of an array -> dtype, shape and checksum (checkpoints/fingerprint.py)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointCard:
    """What a checkpoint says of its model besides the weights."""

    arch: ArchConfig
    tokenizer: dict[str, str]  # file name -> text, as in a Hugging Face folder
    base_model: str | None = None  # hub id of what it descends from
    license: str | None = None  # of that
    checksums: dict[str, str] | None = None  # of the Hugging Face tensors it was converted from; None once trained
    lora: dict[str, Any] | None = None  # settings of its adapters, which are what its params hold
    frozen: str | None = None  # checksum of the weights that are the same in all of the run's steps, held in RUN/frozen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is known of a checkpoint without reading an array."""

    step: int
    card: CheckpointCard | None  # None: of weights that belong to many steps
    arrays: dict[str, ArrayChecksums]  # by item

    def to_json(self) -> dict[str, Any]:
        """As JSON, with a checksum of its own."""
        told = dataclasses.asdict(self)
        return {**told, "sha256": _sha256(told)}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Manifest":
        """Back from JSON.

        Raises:
            ValueError, KeyError, TypeError: it is not what was written.
        """
        told = dict(told)
        if told.pop("sha256") != _sha256(told):
            raise ValueError("what it says of itself is not what was written")
        card = told["card"]
        card = None if card is None else CheckpointCard(**{**card, "arch": ArchConfig(**card["arch"])})
        return cls(**{**told, "card": card})


def combined_checksum(lines: ArrayChecksums) -> str:
    """One checksum of many arrays."""
    return _sha256(lines)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
