"""Convert a model to a checkpoint: Hugging Face folder, hub id or GGUF file -> checkpoint."""

import logging
import os
from collections.abc import Sequence

from wizardcoder_jax.config import ConvertConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.filesystem import remove_folder

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the model's unchanged weights as a checkpoint of step 0."""
    config = parse_command_line(ConvertConfig, argv)

    from wizardcoder_jax.checkpoints.manager import CheckpointManager
    from wizardcoder_jax.checkpoints.metadata import CheckpointCard
    from wizardcoder_jax.checkpoints.reader import find_checkpoint
    from wizardcoder_jax.core.distributed import barrier, initialize_distributed, is_main_process
    from wizardcoder_jax.core.sharding import RULES, make_mesh
    from wizardcoder_jax.hf.load_model import open_model

    initialize_distributed()
    opened, mesh = open_model(config.model), make_mesh(config.mesh)
    if find_checkpoint(config.output) is not None and not config.overwrite:
        logger.info("%s already contains a checkpoint; replace it with --overwrite", config.output)
        return
    weights = opened.weights(RULES["fsdp"], mesh, None)
    card = CheckpointCard(
        arch=opened.arch,
        tokenizer=opened.tokenizer.to_files(),
        base_model=opened.provenance.base_model,
        license=opened.provenance.license,
        checksums=weights.checksums,
    )
    if is_main_process():  # only now that the new weights are loaded
        remove_folder(os.path.join(config.output, "checkpoints"))
    barrier("the old checkpoint is gone")
    with CheckpointManager(config.output, keep=1) as checkpoints:
        checkpoints.save(0, card, {"params": weights.model})


if __name__ == "__main__":
    run_command(main)
