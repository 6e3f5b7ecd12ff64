"""Export a checkpoint to a Hugging Face folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from wizardcoder_jax.config import ExportConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import is_remote, read_json
from wizardcoder_jax.core.instruction_template import WIZARDCODER_CHAT_TEMPLATE


def main(argv: Sequence[str] | None = None) -> None:
    """Write the model folder. An earlier export at the same path is replaced once the new one is complete."""
    config = parse_command_line(ExportConfig, argv)
    _check_output(config)
    results = [(path, read_json(path)) for path in config.results]

    import jax.numpy as jnp

    from wizardcoder_jax.core.distributed import initialize_distributed, is_main_process
    from wizardcoder_jax.core.sharding import RULES, make_mesh
    from wizardcoder_jax.hf.export_folder import export_folder, parse_size
    from wizardcoder_jax.hf.load_model import open_model
    from wizardcoder_jax.hf.model_card import model_card

    max_shard_bytes = parse_size(config.max_shard_size)
    initialize_distributed()
    opened, mesh = open_model(config.checkpoint), make_mesh(config.mesh)
    tokenizer = opened.tokenizer
    if tokenizer.chat_template is None:
        tokenizer = tokenizer.with_chat_template(WIZARDCODER_CHAT_TEMPLATE)
    card = model_card(os.path.basename(os.path.abspath(config.output)), opened.arch, opened.provenance, results)
    weights = opened.weights(RULES["fsdp"], mesh, None)
    dtype = None if config.dtype is None else jnp.dtype(config.dtype)
    export_folder(weights, tokenizer, config.output.rstrip("/"), dtype, max_shard_bytes, {"README.md": card})
    if is_main_process():
        print(f"exported to {config.output}; load it with AutoModelForCausalLM.from_pretrained of transformers")


def _check_output(config: ExportConfig) -> None:
    output = Path(config.output)
    if output.exists() and output.samefile("."):
        raise InputError(f"{output} is the current folder, which the export would replace; choose a folder inside it")
    if is_remote(config.output) or config.overwrite or not output.exists():
        return
    if not output.is_dir() or (any(output.iterdir()) and not (output / "config.json").exists()):
        raise InputError(
            f"{output} exists and is not an exported model; choose another --output, or replace it with --overwrite"
        )


if __name__ == "__main__":
    run_command(main)
