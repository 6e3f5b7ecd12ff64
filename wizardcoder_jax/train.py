"""Fine-tunes a model on instruction data: base weights -> checkpoints."""

import dataclasses
import importlib.metadata
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wizardcoder_jax.cli import parse_cli, run_door, to_json
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.errors import InputError, StoppedEarlyError
from wizardcoder_jax.files import ensure_dir, expand, remove_folder, write_json
from wizardcoder_jax.progress import Progress
from wizardcoder_jax.prompts import WIZARDCODER_CHAT_TEMPLATE
from wizardcoder_jax.training.goodput import GoodputLog, Stopwatch
from wizardcoder_jax.training.stopping import StopRequest

if TYPE_CHECKING:
    from wizardcoder_jax.training.step import State, StepMetrics


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or goes on training, the run in `output_dir`."""
    config = parse_cli(TrainConfig, argv)
    stop, clock = StopRequest(), Stopwatch()
    with clock.phase("start"):
        files = [] if config.task is not None else _data_files(config)
        import jax

        from wizardcoder_jax.data.batches import Batches
        from wizardcoder_jax.data.prepare import prepare
        from wizardcoder_jax.processes import join_processes, make_any, require_same
        from wizardcoder_jax.session import Session
        from wizardcoder_jax.training.checkpoint import Checkpoints
        from wizardcoder_jax.training.step import make_step

        jax.config.update("jax_compilation_cache_dir", os.path.join(config.cache_dir, "compiled"))
        join_processes()
        session = Session.open(config)
    with clock.phase("data"):
        data = prepare(config, files, session.tokenizer)
        batches = Batches(data.train, config.batch_size, config.seed, config.group)
        batches.check(0, config.num_steps)
        require_same({**_shared(config), "data": data.fingerprint})
    with clock.phase("start"):
        _open_run(config)
    pass


if __name__ == "__main__":
    run_door(main)
