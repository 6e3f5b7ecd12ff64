"""Exports a checkpoint: checkpoint -> Hugging Face folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from wizardcoder_jax.cli import parse_cli, run_door
from wizardcoder_jax.config import ExportConfig
from wizardcoder_jax.errors import InputError


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the folder; an earlier export of that name is replaced once the new one is whole."""
    config = parse_cli(ExportConfig, argv)
    output = Path(config.output)
    if output.exists() and not config.overwrite and not (output / "config.json").exists() and any(output.iterdir()):
        raise InputError(f"{output} exists and is no exported model; choose another --output, or --overwrite to replace it")

    import jax.numpy as jnp

    from wizardcoder_jax.hf.folder import export_folder, parse_size
    from wizardcoder_jax.loading import open_model
    from wizardcoder_jax.sharding import RULES, make_mesh

    max_shard_bytes = parse_size(config.max_shard_size)
    opened = open_model(config.checkpoint)
    model = opened.weights(RULES["fsdp"], make_mesh("1x1"), None)
    dtype = None if config.dtype is None else jnp.dtype(config.dtype)
    export_folder(model, opened.tokenizer, os.fspath(output), dtype, max_shard_bytes)
    print(f"exported to {output}: transformers' AutoModelForCausalLM.from_pretrained loads it")


if __name__ == "__main__":
    run_door(main)
