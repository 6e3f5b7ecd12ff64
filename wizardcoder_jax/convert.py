"""Converts a model: Hugging Face folder, hub id or GGUF file -> checkpoint."""

import os
import shutil
import sys
from collections.abc import Sequence

from wizardcoder_jax.cli import parse_cli, run_door
from wizardcoder_jax.config import ConvertConfig


def main(argv: Sequence[str] | None = None) -> None:
    """Writes a checkpoint of step 0 that holds the model's weights as they are."""
    config = parse_cli(ConvertConfig, argv)

    from wizardcoder_jax.loading import open_model
    from wizardcoder_jax.processes import join_processes
    from wizardcoder_jax.sharding import RULES, make_mesh
    from wizardcoder_jax.training.checkpoint import Card, Checkpoints

    join_processes()
    opened, mesh = open_model(config.model), make_mesh(config.mesh)
    if config.overwrite:
        shutil.rmtree(os.path.join(config.output, "checkpoints"), ignore_errors=True)
    with Checkpoints(config.output, keep=1) as checkpoints:
        if checkpoints.latest_step is not None:
            print(f"{config.output} holds a checkpoint already; --overwrite replaces it", file=sys.stderr)
            return
        weights = opened.weights(RULES["fsdp"], mesh, None)
        card = Card(
            arch=opened.arch,
            tokenizer=opened.tokenizer.to_files(),
            base_model=opened.lineage.base_model,
            license=opened.lineage.license,
            checksums=weights.checksums,
        )
        checkpoints.save(0, card, weights.model, None)


if __name__ == "__main__":
    run_door(main)
