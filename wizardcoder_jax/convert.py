"""Converts a model: Hugging Face folder, hub id or GGUF file -> checkpoint."""

import os
import sys
from collections.abc import Sequence

from wizardcoder_jax.cli import parse_cli, run_door
from wizardcoder_jax.config import ConvertConfig
from wizardcoder_jax.files import remove_folder


def main(argv: Sequence[str] | None = None) -> None:
    """Writes a checkpoint of step 0 that holds the model's weights as they are."""
    config = parse_cli(ConvertConfig, argv)

    from wizardcoder_jax.loading import open_model
    from wizardcoder_jax.processes import is_first, join_processes, wait_for_all
    from wizardcoder_jax.sharding import RULES, make_mesh
    from wizardcoder_jax.training.card import Card
    from wizardcoder_jax.training.checkpoint import Checkpoints
    from wizardcoder_jax.training.stored import find_checkpoint

    join_processes()
    opened, mesh = open_model(config.model), make_mesh(config.mesh)
    if find_checkpoint(config.output) is not None and not config.overwrite:
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
    if is_first():  # only now, that there is something to put in its place
        remove_folder(os.path.join(config.output, "checkpoints"))
    wait_for_all("the old checkpoint is gone")
    with Checkpoints(config.output, keep=1) as checkpoints:
        checkpoints.save(0, card, {"params": weights.model})


if __name__ == "__main__":
    run_door(main)
