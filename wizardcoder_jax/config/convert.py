"""Settings of convert."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Convert a Hugging Face folder, hub id or .gguf file to a checkpoint folder."""

    model: str  # Hugging Face folder, hub id or .gguf file
    output: str  # checkpoint folder to write
    mesh: str = "1x1"  # device mesh: DATAxMODEL
    overwrite: bool = False  # replace an existing checkpoint
