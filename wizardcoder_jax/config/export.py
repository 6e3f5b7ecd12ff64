"""Settings of export."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Export a checkpoint as a Hugging Face folder."""

    checkpoint: str  # checkpoint folder (of one step, or of a run: its newest step)
    output: str  # folder to write
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # dtype of the weights; default: as in the checkpoint
    max_shard_size: str = "5GB"  # maximum size of one safetensors file
    results: tuple[str, ...] = ()  # results.json files of evaluate whose scores go into the model card
    mesh: str = "1x1"  # device mesh: DATAxMODEL
    overwrite: bool = False  # replace an existing folder
