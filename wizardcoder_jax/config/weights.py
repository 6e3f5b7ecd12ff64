"""Settings of convert and export."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Hugging Face folder, hub id or .gguf file -> checkpoint folder."""

    model: str  # Hugging Face folder, hub id or .gguf file
    output: str  # checkpoint folder to write
    mesh: str = "1x1"  # devices: DATAxMODEL
    overwrite: bool = False  # replace an existing checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Checkpoint -> Hugging Face folder."""

    checkpoint: str  # checkpoint folder (of one step, or of a run: its newest step)
    output: str  # folder to write
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # of the weights; by default as they are held
    max_shard_size: str = "5GB"  # of one safetensors file
    results: tuple[str, ...] = ()  # results.json files of evaluate, whose scores go into the model card
    mesh: str = "1x1"  # devices: DATAxMODEL
    overwrite: bool = False  # replace an existing folder
